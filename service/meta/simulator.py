"""Simulates Meta: the handshake, every kind of notification, and requests that must be refused."""

import secrets
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final
from urllib.parse import urlencode

import urllib3

from service import signature
from service.credentials import Credentials
from service.meta import catalogue
from service.telemetry import metrics

NOBODY: Final = "could not connect"
SIMULATOR_TIMEOUT_SECONDS: Final = 10.0


@dataclass(frozen=True, slots=True)
class SimulatedStep:
    """One request: what was sent, how it was answered, and the expected answer."""

    what: str
    answered: str
    expected: str

    @property
    def is_good(self) -> bool:
        """Return whether the answer was the expected one."""
        return self.answered == self.expected


class Simulator:
    """Sends requests to one URL with one set of credentials."""

    def __init__(self, url: str, credentials: Credentials) -> None:
        self._url = url
        self._token = credentials.verify_tokens[0].decode("utf-8", "replace")
        self._secret = credentials.app_secrets[0]
        self._http = urllib3.PoolManager(retries=False, timeout=SIMULATOR_TIMEOUT_SECONDS)

    def handshake(self) -> SimulatedStep:
        """Send the handshake."""
        return self._handshake("handshake", self._token, expect_challenge=True)

    def test(self) -> Iterator[SimulatedStep]:
        """Send what Meta's "Test" button sends, whose event is marked `test`, and requests that must be refused."""
        yield self._handshake("handshake with a wrong token", secrets.token_urlsafe(), expect_challenge=False)
        yield self._post("test notification", catalogue.test_notification(), "200")
        yield from self._forged(catalogue.test_notification())

    def kind(self, kind: str, count: int, *, person: str | None, text: str | None) -> Iterator[SimulatedStep]:
        """Send *count* notifications of a kind, from a person and with a text; see `catalogue.written`."""
        for _ in range(count):
            yield self._post(kind, catalogue.written(kind, person=person, text=text), "200")

    def file(self, name: str, body: bytes) -> Iterator[SimulatedStep]:
        """Send a body as it is, signed."""
        yield self._post(name, body, "200")

    def tour(self, *, batch: int, unrecognized: bool = False) -> Iterator[SimulatedStep]:
        """Send every kind of request once, and a notification with *batch* messages.

        With *unrecognized* also a signed body that is not a notification.
        """
        yield self._handshake("handshake with a wrong token", secrets.token_urlsafe(), expect_challenge=False)
        for kind in catalogue.kinds():
            yield self._post(kind, catalogue.notification(kind), "200")
        message = catalogue.notification("message text")
        yield self._post("another message", message, "200")
        yield self._post("the same message again (a retry)", message, "200")
        yield self._post(f"batch of {batch} messages", catalogue.batch(batch), "200")
        if unrecognized:
            unrecognized_body = b'["not a notification", "%s"]' % secrets.token_hex(8).encode()
            yield self._post("signed body that is not a notification", unrecognized_body, "200")
        yield from self._forged(catalogue.notification("message text"))

    def _forged(self, body: bytes) -> Iterator[SimulatedStep]:
        right = signature.header_for(body, self._secret)
        for what, header in (
            ("no signature", None),
            ("signature with another secret", signature.header_for(body, secrets.token_bytes(16))),
            ("signature of another body", signature.header_for(body + b" ", self._secret)),
            ("truncated signature", right[:-1]),
        ):
            yield SimulatedStep(what, self._send(body, header), "401")

    def accepted(self, url: str) -> float:
        """Return how many notifications the metrics at *url* count as accepted; raises urllib3's HTTPError."""
        return metrics.outcomes_in(self._http.request("GET", url).data.decode(), "notifications").get("accepted", 0.0)

    def _handshake(self, what: str, token: str, *, expect_challenge: bool) -> SimulatedStep:
        challenge = str(secrets.randbelow(10**10))
        query = urlencode({"hub.mode": "subscribe", "hub.challenge": challenge, "hub.verify_token": token})
        try:
            response = self._http.request("GET", f"{self._url}?{query}")
        except urllib3.exceptions.HTTPError as ex:
            return SimulatedStep(what, _error(ex), "200 and the challenge" if expect_challenge else "404")
        is_echoed = response.data == challenge.encode()
        answered = f"{response.status} and the challenge" if is_echoed else str(response.status)
        return SimulatedStep(what, answered, "200 and the challenge" if expect_challenge else "404")

    def _post(self, what: str, body: bytes, expected: str) -> SimulatedStep:
        return SimulatedStep(what, self._send(body, signature.header_for(body, self._secret)), expected)

    def _send(self, body: bytes, header: str | None) -> str:
        headers = {"Content-Type": "application/json"} | ({signature.HEADER: header} if header else {})
        try:
            return str(self._http.request("POST", self._url, body=body, headers=headers).status)
        except urllib3.exceptions.HTTPError as ex:
            return _error(ex)


def _error(ex: urllib3.exceptions.HTTPError) -> str:
    if isinstance(ex, urllib3.exceptions.NewConnectionError):
        return NOBODY
    return type(ex).__name__
