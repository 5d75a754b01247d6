"""Requests as Meta makes them: nothing followed, nothing decoded, little of the answer read."""

import re
import secrets
import time
from typing import Final, NamedTuple
from urllib.parse import quote, quote_plus, urlencode

import urllib3
from urllib3.util import parse_url

from service import signature
from service.deadline import within

# As those see them whom Meta calls: one for the handshake, one for notifications.
AGENTS: Final = {"GET": "facebookplatform/1.0 (+http://developers.facebook.com)", "POST": "facebookexternalua"}
CALL_TIMEOUT: Final = urllib3.Timeout(connect=5, read=15)  # seconds
CALL_DEADLINE_SECONDS: Final = 30.0
MAX_RESPONSE_BYTES: Final = 65536  # bytes of an answer
MAX_HEADER_CHARACTERS: Final = 200  # characters of a header that are said again
HIDDEN: Final = "somewhere that has the verify token in it"
WANTS_CERTIFICATE: Final = "a client certificate is wanted"
_ALERTS: Final = ("CERTIFICATE_REQUIRED", "HANDSHAKE_FAILURE", "BAD_CERTIFICATE")  # to who shows none, among others


class CallerResponse(NamedTuple):
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

    def __init__(self, url: str, *, deadline: float = CALL_DEADLINE_SECONDS) -> None:
        """*deadline* is in seconds, for all of a request."""
        self.url = url
        self._deadline = deadline
        self._http = urllib3.PoolManager(retries=False, timeout=CALL_TIMEOUT)

    def look(self, at: str = "") -> CallerResponse:
        """GET the URL with nothing in it; *at* one of its host's addresses, empty for any."""
        return self._call("GET", self.url, at=at)

    def greet(self, token: bytes, challenge: str | None = None) -> tuple[CallerResponse, str]:
        """Do the handshake; gives the answer, in no header of which the token is, and the challenge for its body."""
        challenge = challenge or str(secrets.randbelow(10**10))
        query = urlencode({"hub.mode": "subscribe", "hub.challenge": challenge, "hub.verify_token": token})
        joint = "&" if "?" in self.url else "?"
        answer = self._call("GET", f"{self.url}{joint}{query}")
        return answer._replace(
            server=_hidden(answer.server, token), location=_hidden(answer.location, token)
        ), challenge

    def notify(self, body: bytes, secret: bytes, *, encoded: bool = False) -> CallerResponse:
        """POST a notification, signed; *encoded*: with a header that the service refuses, before it looks further."""
        headers = {"Content-Type": "application/json", signature.HEADER: signature.header_for(body, secret)}
        more = {"Content-Encoding": "gzip"} if encoded else {}
        return self._call("POST", self.url, body=body, headers=headers | more)

    def _call(
        self, method: str, url: str, *, at: str = "", headers: dict[str, str] | None = None, body: bytes | None = None
    ) -> CallerResponse:
        def ask() -> CallerResponse:
            where = parse_url(url)
            given = {"Host": where.netloc or "", "User-Agent": AGENTS[method], "Accept": "*/*", **(headers or {})}
            secured = {"server_hostname": where.host, "assert_hostname": where.host} if where.scheme == "https" else {}
            started = time.monotonic()
            pool = self._http.connection_from_host(at or where.host, where.port, where.scheme, secured if at else None)
            answer = pool.urlopen(
                method,
                where.request_uri,
                body=body,
                headers=given,
                redirect=False,
                preload_content=False,
                decode_content=False,
            )
            content = answer.read(MAX_RESPONSE_BYTES)
            answer.close()
            told = answer.headers
            # What a redirect passes on of the query may hold the verify token.
            location = re.split("[?#&;]", told.get("Location", ""), maxsplit=1)[0]
            took = time.monotonic() - started
            return CallerResponse(
                answer.status,
                content,
                told.get("Server", "")[:MAX_HEADER_CHARACTERS],
                location[:MAX_HEADER_CHARACTERS],
                seconds=took,
            )

        try:
            return within(self._deadline, ask)
        except (urllib3.exceptions.HTTPError, TimeoutError) as ex:
            return CallerResponse(0, why=_why(ex))


def _hidden(told: str, token: bytes) -> str:
    """Leave out what somebody says again of what was asked, the token with it."""
    text = token.decode("utf-8", "replace")
    forms = {text, *(each(text, safe=safe) for each in (quote, quote_plus) for safe in ("", "/"))}
    return HIDDEN if any(form.lower() in told.lower() for form in forms if form) else told


def wants_certificate(ex: Exception) -> bool:
    """Say whether the other side broke a TLS handshake off as it does who wants a client certificate."""
    return any(alert in str(ex).upper().replace(" ", "_") for alert in _ALERTS)


def _why(ex: urllib3.exceptions.HTTPError | TimeoutError) -> str:
    if wants_certificate(ex):
        return WANTS_CERTIFICATE
    if isinstance(ex, urllib3.exceptions.NewConnectionError):
        return "nobody takes connections there"
    if isinstance(ex, urllib3.exceptions.TimeoutError | TimeoutError):
        return "no answer in time"
    return f"the connection broke ({type(ex).__name__})"
