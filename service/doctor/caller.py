"""Requests as Meta makes them: nothing followed, nothing decoded, little of the answer read."""

import secrets
import time
from typing import Any, Final, NamedTuple
from urllib.parse import urlencode, urlsplit

import urllib3

from service import signature

AGENT: Final = "facebookplatform/1.0 (+http://developers.facebook.com)"
TIMEOUT: Final = urllib3.Timeout(connect=5, read=15)  # seconds
MOST: Final = 65536  # bytes of an answer


class Answer(NamedTuple):
    """What came back: status 0 where nothing did, and then why."""

    status: int
    body: bytes = b""
    server: str = ""
    location: str = ""
    why: str = ""
    seconds: float = 0.0

    @property
    def text(self) -> str:
        """Give the body as text, whatever it is."""
        return self.body.decode("utf-8", "replace")


class Caller:
    """Calls one URL."""

    def __init__(self, url: str) -> None:
        self.url = url
        self._http = urllib3.PoolManager(retries=False, timeout=TIMEOUT)

    def look(self) -> Answer:
        """GET the URL with nothing in it."""
        return self._call("GET", self.url)

    def greet(self, token: bytes, challenge: str | None = None) -> tuple[Answer, str]:
        """Do the handshake; gives the answer, and the challenge that should be in it."""
        challenge = challenge or str(secrets.randbelow(10**10))
        query = urlencode({"hub.mode": "subscribe", "hub.challenge": challenge, "hub.verify_token": token})
        joint = "&" if urlsplit(self.url).query else "?"
        return self._call("GET", f"{self.url}{joint}{query}"), challenge

    def notify(self, body: bytes, secret: bytes) -> Answer:
        """POST a notification, signed."""
        headers = {"Content-Type": "application/json", signature.HEADER: signature.header_for(body, secret)}
        return self._call("POST", self.url, body=body, headers=headers)

    def _call(self, method: str, url: str, *, headers: dict[str, str] | None = None, **more: Any) -> Answer:
        started = time.monotonic()
        given = {"User-Agent": AGENT, "Accept": "*/*", **(headers or {})}
        try:
            answer = self._http.request(
                method, url, headers=given, redirect=False, preload_content=False, decode_content=False, **more
            )
            body = answer.read(MOST)
            answer.close()
        except urllib3.exceptions.HTTPError as ex:
            return Answer(0, why=_why(ex))
        told = answer.headers
        took = time.monotonic() - started
        return Answer(answer.status, body, told.get("Server", ""), told.get("Location", ""), seconds=took)


def _why(ex: urllib3.exceptions.HTTPError) -> str:
    if isinstance(ex, urllib3.exceptions.NewConnectionError):
        return "nobody takes connections there"
    if isinstance(ex, urllib3.exceptions.TimeoutError):
        return "no answer in time"
    return f"the connection broke ({type(ex).__name__})"
