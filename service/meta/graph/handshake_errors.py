"""Why Meta's handshake with a callback URL failed: the causes behind its error 2200.

Meta calls the URL with curl and says what came of it: a status of HTTP, an error of curl's (source: "libcurl error
codes"), or an answer that was not the challenge.
"""

import re
from typing import Final, NamedTuple

HANDSHAKE_ERROR_CODE: Final = 2200
_STATUS: Final = re.compile(r"HTTP Status Code = ([0-9]{3})")
_CURL: Final = re.compile(r"curl_errno = ([0-9]+)")
_CHALLENGE: Final = re.compile(r'expected value="(.*?)", received="(.*)"', re.DOTALL)
MAX_SEARCHED_CHARACTERS: Final = 4096  # characters of a message that are looked at
MAX_ANSWER_CHARACTERS: Final = 60  # characters of a strange answer that are said again
URL: Final = "{url}"  # in a remedy: the callback URL
ASK: Final = f"`whatsapp-webhook doctor --url {URL}`"


class Why(NamedTuple):
    """What it was, and what to do."""

    what: str
    remedy: str


_TLS: Final = (
    "Meta wants a certificate of a public authority, for this very name, with the intermediate certificates, and not "
    f"expired: {ASK} looks at it."
)
_OF_CURL: Final = {
    3: Why("it is no URL", "Write it as https://your-host/webhooks."),
    6: Why("the name in it is not found", "Make the DNS record, and wait until public name servers have it."),
    7: Why("nobody takes connections there", "Is the load balancer up, and port 443 open to the internet?"),
    28: Why(
        "no answer in time: Meta gives it six seconds",
        "Is port 443 open to the whole internet, and does the service run? A firewall or a CDN may drop what Meta "
        "sends.",
    ),
    35: Why("the TLS handshake failed", _TLS),
    47: Why("it redirects again and again", "Enter the URL that answers itself."),
    51: Why("the certificate is for another name", _TLS),
    52: Why(
        "the connection was closed without an answer", "Something before the service closes it: a firewall, a proxy."
    ),
    56: Why("the connection broke off", "Something before the service closes it: a firewall, a proxy."),
    58: Why(
        "the other side wants a client certificate", "Meta has one, of its own authority; take that, or ask for none."
    ),
    60: Why("the certificate is not trusted", _TLS),
    77: Why("the certificate is not trusted", _TLS),
}
_PROXY: Final = Why(
    "a proxy answers that nothing is behind it",
    "Does the service run, is it ready, and does the proxy send the path to it?",
)
_OF_STATUS: Final = {
    401: Why("something before the service asks for a login", "Let the path through without one: Meta signs instead."),
    403: Why("something before the service refuses it", "A firewall or a CDN: let the path through for everybody."),
    404: Why(
        "404: this path does not lead to the service, or the verify token is not one in force there",
        f"{ASK} tells the two apart.",
    ),
    405: Why("the path does not take a GET", "The URL must lead to the service's own path, /webhooks."),
    408: Why("the request was not complete in time", "Something on the way is too slow."),
    429: Why("something before the service limits how often it may be called", "Exempt the path from the limit."),
    502: _PROXY,
    503: _PROXY,
    504: _PROXY,
}


def why(message: str) -> Why:
    """Read Meta's message of error 2200."""
    message = message[:MAX_SEARCHED_CHARACTERS]
    if found := _CHALLENGE.search(message):
        expected, received = found.groups()
        return _of_answer(expected, received)
    if found := _CURL.search(message):
        number = int(found[1])
        return _OF_CURL.get(number, Why(f"curl's error {number}", f"{ASK} says more."))
    if found := _STATUS.search(message):
        return of_status(int(found[1]))
    return Why("Meta does not say why", f"{ASK} does what Meta does, and says what came.")


def of_status(status: int) -> Why:
    """Say what a status other than 200 means."""
    if 300 <= status < 400:  # noqa: PLR2004  redirection
        return Why(
            f"it redirects ({status}), and Meta follows nothing",
            "Enter the URL that it leads to: https, the name and the slash at the end as the service has them.",
        )
    known = _OF_STATUS.get(status)
    if known:
        return known
    return Why(f"it answers {status} and not 200", f"{ASK} says what answers there.")


def _of_answer(expected: str, received: str) -> Why:
    bare = received.strip().strip('\\"').strip()
    if bare == expected.strip():
        return Why(
            "the challenge came back in quotes or with blanks",
            "Something answers that is not this service, or changes its answer: the body is to be the bare challenge.",
        )
    shown = f"{received[:MAX_ANSWER_CHARACTERS]}..." if len(received) > MAX_ANSWER_CHARACTERS else received
    return Why(
        f"something else answers there, with {shown!r}",
        "The URL leads to a page or another application: look at the host and at the path.",
    )
