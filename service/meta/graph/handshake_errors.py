"""Why Meta's handshake with a callback URL failed: the causes behind its error 2200.

Meta calls the URL with curl and reports the result in a message: an HTTP status, a curl error (source: "libcurl error
codes"), or a response that was not the challenge.
"""

import re
from typing import Final, NamedTuple

HANDSHAKE_ERROR_CODE: Final = 2200
_STATUS: Final = re.compile(r"HTTP Status Code = ([0-9]{3})")
_CURL: Final = re.compile(r"curl_errno = ([0-9]+)")
_CHALLENGE: Final = re.compile(r'expected value="(.*?)", received="(.*)"', re.DOTALL)
MAX_SEARCHED_CHARACTERS: Final = 4096  # of Meta's message
MAX_ANSWER_CHARACTERS: Final = 60  # of the other response, in our message
URL: Final = "{url}"  # in a remedy: the callback URL
ASK: Final = f"`whatsapp-webhook doctor --url {URL}`"


class HandshakeFailure(NamedTuple):
    """The cause and the remedy."""

    what: str
    remedy: str


_TLS: Final = (
    "Meta requires a certificate of a public authority, for exactly this name, not expired, with the intermediate "
    f"certificates: {ASK} checks it."
)
_CLOSED: Final = "Check what is in front of the service: a firewall or a proxy may close the connection."
_OF_CURL: Final = {
    3: HandshakeFailure("it is not a valid URL", "Write it as https://your-host/webhooks."),
    6: HandshakeFailure(
        "its host name could not be resolved", "Create the DNS record, and wait until public name servers have it."
    ),
    7: HandshakeFailure(
        "Meta could not connect", "Check that the load balancer is running and that port 443 is open to the internet."
    ),
    28: HandshakeFailure(
        "no response within six seconds, which is Meta's timeout",
        (
            "Check that port 443 is open to the whole internet and that the service is running. A firewall or a CDN "
            "may drop Meta's requests."
        ),
    ),
    35: HandshakeFailure("the TLS handshake failed", _TLS),
    47: HandshakeFailure("too many redirects", "Use a URL that does not redirect."),
    51: HandshakeFailure("the certificate is for another name", _TLS),
    52: HandshakeFailure("the connection was closed without a response", _CLOSED),
    56: HandshakeFailure("the connection was closed before the end of the response", _CLOSED),
    58: HandshakeFailure(
        "the server requires a client certificate",
        "Accept Meta's client certificate (see docs/kubernetes.md), or do not require one.",
    ),
    60: HandshakeFailure("the certificate is not trusted", _TLS),
    77: HandshakeFailure("the certificate is not trusted", _TLS),
}
_PROXY: Final = HandshakeFailure(
    "a proxy answers that it has no working backend",
    "Check that the service is running and ready, and that the proxy sends this path to it.",
)
_OF_STATUS: Final = {
    401: HandshakeFailure(
        "something in front of the service requires a login",
        "Exempt the path from the login: Meta signs its notifications instead.",
    ),
    403: HandshakeFailure(
        "something in front of the service refuses the request",
        "Allow the path for everybody: in the firewall or the CDN.",
    ),
    404: HandshakeFailure(
        "404: either the path does not lead to the service, or the service does not accept the verify token",
        f"{ASK} finds out which.",
    ),
    405: HandshakeFailure(
        "the path does not accept GET", "The URL must lead to the service's path, by default /webhooks."
    ),
    408: HandshakeFailure("a server on the way timed out", "Check what is in front of the service."),
    429: HandshakeFailure(
        "something in front of the service limits the rate of requests", "Exempt the path from the limit."
    ),
    502: _PROXY,
    503: _PROXY,
    504: _PROXY,
}


def failure(message: str) -> HandshakeFailure:
    """Return the cause that Meta's message of error 2200 contains."""
    message = message[:MAX_SEARCHED_CHARACTERS]
    if found := _CHALLENGE.search(message):
        expected, received = found.groups()
        return _of_response(expected, received)
    if found := _CURL.search(message):
        number = int(found[1])
        return _OF_CURL.get(number, HandshakeFailure(f"curl error {number}", f"{ASK} reports more."))
    if found := _STATUS.search(message):
        return of_status(int(found[1]))
    return HandshakeFailure("Meta does not say why", f"{ASK} sends the same request and reports the response.")


def of_status(status: int) -> HandshakeFailure:
    """Return the cause of a status other than 200."""
    if 300 <= status < 400:  # noqa: PLR2004  redirection
        return HandshakeFailure(
            f"it redirects ({status}), and Meta does not follow redirects",
            "Use the URL that it redirects to: with the same scheme, host name and final slash.",
        )
    known = _OF_STATUS.get(status)
    if known:
        return known
    return HandshakeFailure(f"it answers {status} instead of 200", f"{ASK} reports what answers there.")


def _of_response(expected: str, received: str) -> HandshakeFailure:
    bare = received.strip().strip('\\"').strip()
    if bare == expected.strip():
        return HandshakeFailure(
            "the challenge came back in quotes or with whitespace",
            (
                "Something other than this service answers, or changes its response: the body must be the challenge "
                "alone."
            ),
        )
    shown = f"{received[:MAX_ANSWER_CHARACTERS]}..." if len(received) > MAX_ANSWER_CHARACTERS else received
    return HandshakeFailure(
        f"something else answers there, with {shown!r}",
        "The URL leads to a page or another application: check its host and path.",
    )
