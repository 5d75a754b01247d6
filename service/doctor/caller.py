"""HTTP requests as Meta sends them: redirects are not followed, and only the start of a response is read."""

import re
import secrets
import time
from typing import Final, NamedTuple
from urllib.parse import quote, quote_plus, urlencode

import urllib3
from urllib3.util import parse_url

from service import signature
from service.deadline import within

# Meta's User-Agent headers: one for the handshake, another for notifications.
USER_AGENTS: Final = {
    "GET": "facebookplatform/1.0 (+http://developers.facebook.com)",
    "POST": "facebookexternalua",
}
CALL_TIMEOUT: Final = urllib3.Timeout(connect=5, read=15)  # seconds
CALL_DEADLINE_SECONDS: Final = 30.0
MAX_RESPONSE_BYTES: Final = 65536
MAX_HEADER_CHARACTERS: Final = 200  # of a response header that is shown
HIDDEN_HEADER: Final = "(hidden: contains the verify token)"
CLIENT_CERTIFICATE_REQUIRED: Final = "a client certificate is required"
# TLS alerts that a server sends to a client without a certificate; some have other causes too.
_CLIENT_CERTIFICATE_ALERTS: Final = ("CERTIFICATE_REQUIRED", "HANDSHAKE_FAILURE", "BAD_CERTIFICATE")


class CallerResponse(NamedTuple):
    """A response; *status* is 0 if there was none, and *error* says why."""

    status: int
    body: bytes = b""
    server: str = ""
    location: str = ""
    error: str = ""
    seconds: float = 0.0

    @property
    def text(self) -> str:
        """Return the body as text, with undecodable bytes replaced."""
        return self.body.decode("utf-8", "replace")


class Caller:
    """Sends requests to one URL."""

    def __init__(self, url: str, *, deadline: float = CALL_DEADLINE_SECONDS) -> None:
        """Limit each request, from connecting to reading, to *deadline* seconds."""
        self.url = url
        self._deadline = deadline
        self._http = urllib3.PoolManager(retries=False, timeout=CALL_TIMEOUT)

    def get(self, address: str = "") -> CallerResponse:
        """Send a GET without parameters; *address* is one of the host's addresses, empty for any."""
        return self._call("GET", self.url, address=address)

    def handshake(self, token: bytes, challenge: str | None = None) -> tuple[CallerResponse, str]:
        """Send the handshake and return the response and the challenge; the response's headers never hold the token."""
        challenge = challenge or str(secrets.randbelow(10**10))
        query = urlencode({"hub.mode": "subscribe", "hub.challenge": challenge, "hub.verify_token": token})
        separator = "&" if "?" in self.url else "?"
        response = self._call("GET", f"{self.url}{separator}{query}")
        return response._replace(
            server=_without_token(response.server, token), location=_without_token(response.location, token)
        ), challenge

    def notify(self, body: bytes, secret: bytes, *, encoded: bool = False) -> CallerResponse:
        """Send a signed notification; *encoded* adds a Content-Encoding, which the service refuses."""
        headers = {"Content-Type": "application/json", signature.HEADER: signature.header_for(body, secret)}
        encoding = {"Content-Encoding": "gzip"} if encoded else {}
        return self._call("POST", self.url, body=body, headers=headers | encoding)

    def _call(
        self,
        method: str,
        url: str,
        *,
        address: str = "",
        headers: dict[str, str] | None = None,
        body: bytes | None = None,
    ) -> CallerResponse:
        def send() -> CallerResponse:
            parts = parse_url(url)
            sent = {
                "Host": parts.netloc or "",
                "User-Agent": USER_AGENTS[method],
                "Accept": "*/*",
                **(headers or {}),
            }
            tls = {"server_hostname": parts.host, "assert_hostname": parts.host} if parts.scheme == "https" else {}
            started = time.monotonic()
            pool = self._http.connection_from_host(
                address or parts.host, parts.port, parts.scheme, tls if address else None
            )
            response = pool.urlopen(
                method,
                parts.request_uri,
                body=body,
                headers=sent,
                redirect=False,
                preload_content=False,
                decode_content=False,
            )
            content = response.read(MAX_RESPONSE_BYTES)
            response.close()
            received = response.headers
            # A redirect may repeat the query, and so the verify token.
            location = re.split("[?#&;]", received.get("Location", ""), maxsplit=1)[0]
            seconds = time.monotonic() - started
            return CallerResponse(
                response.status,
                content,
                received.get("Server", "")[:MAX_HEADER_CHARACTERS],
                location[:MAX_HEADER_CHARACTERS],
                seconds=seconds,
            )

        try:
            return within(self._deadline, send)
        except (urllib3.exceptions.HTTPError, TimeoutError) as ex:
            return CallerResponse(0, error=_error(ex))


def _without_token(header: str, token: bytes) -> str:
    """Replace a response header that repeats the token, as it is or percent-encoded."""
    text = token.decode("utf-8", "replace")
    forms = {text, *(encode(text, safe=safe) for encode in (quote, quote_plus) for safe in ("", "/"))}
    return HIDDEN_HEADER if any(form.lower() in header.lower() for form in forms if form) else header


def may_require_certificate(ex: Exception) -> bool:
    """Return whether *ex* is a TLS alert that a server sends if it requires a client certificate."""
    return any(alert in str(ex).upper().replace(" ", "_") for alert in _CLIENT_CERTIFICATE_ALERTS)


def _error(ex: urllib3.exceptions.HTTPError | TimeoutError) -> str:
    if may_require_certificate(ex):
        return CLIENT_CERTIFICATE_REQUIRED
    if isinstance(ex, urllib3.exceptions.NewConnectionError):
        return "could not connect"
    if isinstance(ex, urllib3.exceptions.TimeoutError | TimeoutError):
        return "the request timed out"
    return f"the connection failed ({type(ex).__name__})"
