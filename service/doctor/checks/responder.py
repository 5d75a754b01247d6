"""What answers at a URL: the service, or something in front of it that refuses or changes requests and responses.

The service's own responses are fixed texts, by which they are recognized.
"""

from collections.abc import Sequence
from http import HTTPStatus
from typing import Final, NamedTuple

from service import errors
from service.doctor.caller import CLIENT_CERTIFICATE_REQUIRED, Caller, CallerResponse
from service.doctor.checks.certificate import SEE_CLIENT_CERTIFICATE
from service.doctor.finding import Finding
from service.outcomes import CheckId
from service.receiver.responses import ANSWERS
from service.strict_app import WRONG_PATH

OK: Final = HTTPStatus.OK
_BAD_GATEWAY: Final = (502, 503, 504)
_FORBIDDEN: Final = (401, 403, 407, 429)
REASON_HIDDEN: Final = (
    "On purpose, the response does not say which. `whatsapp-webhook doctor`, run in the service's pod or on its "
    "machine, does."
)


class DirectResult(NamedTuple):
    """What the service on this machine accepts without a proxy; *is_alone*: no other instance uses its inbox."""

    verifies: bool  # the handshake
    accepts: bool  # a notification
    is_alone: bool

    def another(self) -> tuple[str, str]:
        """Return detail and remedy for a refusal that did not come from this instance."""
        if self.is_alone:
            return (
                "Another instance answered, with other credentials: the instance here received no request.",
                "Check where the URL's DNS name and the proxy send requests: to another release?",
            )
        remedy = (
            "Run the doctor in each pod, and check where the URL sends requests. If every instance accepts line 1 of "
            "the credentials, configure the proxy to pass query string, header and body on unchanged."
        )
        return "Another instance answered: either it has other credentials, or the proxy changes the request.", remedy


def answers(caller: Caller, token: bytes) -> tuple[Finding, bool]:
    """Check what answers a GET without parameters, which the service refuses; return too whether it is the service.

    Something in front of the service may replace its refusals with pages of its own: then a handshake with *token*,
    which may be empty, decides.
    """
    response = caller.get()
    check = CheckId.ANSWER
    if response.text == ANSWERS[errors.HandshakeRefused].text:
        return Finding.ok(check, "The service answers."), True
    if _requires_certificate(response):
        what = (
            "Something in front of the service requires a client certificate, which Meta has and this machine does not."
        )
        return Finding.unknown(check, what, SEE_CLIENT_CERTIFICATE), False
    if response.status and token:
        verified, challenge = caller.handshake(token)
        if verified.status == OK and verified.body == challenge.encode():
            return Finding.ok(
                check, "The service answers; something in front of it replaces refusals with its own pages."
            ), True
    if response.text == WRONG_PATH and response.status == HTTPStatus.NOT_FOUND:
        return Finding.wrong(check, *_OTHER_PATH), False
    return Finding.wrong(check, *other_response(response)), False


def differing_address(caller: Caller, addresses: Sequence[str]) -> Finding | None:
    """Return a finding if one of several addresses of the host does not lead to the service, and others do."""
    if len(addresses) < 2:  # noqa: PLR2004
        return None
    refusal = ANSWERS[errors.HandshakeRefused].text
    responses = {address: caller.get(address) for address in addresses}
    is_any_ours = any(response.text == refusal for response in responses.values())
    for address, response in responses.items():
        if response.text != refusal and is_any_ours and not _requires_certificate(response):
            what, remedy = other_response(response)
            return Finding.wrong(CheckId.ANSWER, f"At {address}, one of {len(addresses)} addresses: {what}", remedy)
    return None


_OTHER_PATH: Final = (
    "The service answers, but not at this path: its path is WEBHOOK_PATH, by default /webhooks.",
    "Use the URL with that path, or configure the proxy to pass the path on unchanged.",
)


def _requires_certificate(response: CallerResponse) -> bool:
    return response.error == CLIENT_CERTIFICATE_REQUIRED or "No required SSL certificate was sent" in response.text


def other_response_later(response: CallerResponse) -> tuple[str, str]:
    """Return detail and remedy for a response that is not the service's, after the service had answered before."""
    if response.status not in (*_BAD_GATEWAY, HTTPStatus.TOO_MANY_REQUESTS):
        return other_response(response)
    by = f" ({response.server})" if response.server else ""
    remedy = (
        "If this is a rate limit, exempt the path from it. Otherwise one of several backends is failing: run the "
        "doctor again, and check each of them."
    )
    return f"The service answered before, but now something in front of it answers {response.status}{by}.", remedy


def other_response(response: CallerResponse) -> tuple[str, str]:
    """Return detail and remedy for a response that is not the service's."""
    by = f" ({response.server})" if response.server else ""
    if not response.status:
        return (
            f"No response: {response.error}.",
            "Check that the proxy serves HTTP at this port, and that the service behind it is running.",
        )
    if 300 <= response.status < 400:  # noqa: PLR2004  redirection
        return (
            f"It redirects to {response.location or 'another URL'}{by}; Meta does not follow redirects.",
            "Register the URL that it redirects to, or remove the redirect from this path.",
        )
    if response.status in _BAD_GATEWAY:
        return (
            f"A proxy answers {response.status}{by}: it has no working backend.",
            (
                "Check that the service is running and ready (its /readyz), and that the proxy sends to its address "
                "and port."
            ),
        )
    if response.status in _FORBIDDEN:
        return (
            f"Something in front of the service answers {response.status}{by}: a login, a firewall or a rate limit.",
            "Allow everybody to reach this path: Meta signs its notifications, and the service checks the signature.",
        )
    if response.status == HTTPStatus.NOT_FOUND:
        return (
            f"404{by}, but not from the service: no proxy rule sends this path to it.",
            "Check host and path of the URL, and the proxy's rules.",
        )
    return (
        f"Something other than this service answers, with {response.status}{by}.",
        "Check host and path of the URL, and where the proxy sends them.",
    )
