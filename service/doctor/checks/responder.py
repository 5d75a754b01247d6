"""What answers at a URL: the service, or something before it, and what that does to requests and answers.

The service's own answers are fixed texts, so that they can be told from everybody else's.
"""

from collections.abc import Sequence
from http import HTTPStatus
from typing import Final, NamedTuple

from service import errors
from service.doctor.caller import WANTS_CERTIFICATE, Caller, CallerResponse
from service.doctor.finding import Finding
from service.outcomes import CheckId
from service.receiver.responses import ANSWERS
from service.strict_app import WRONG_PATH

OK: Final = HTTPStatus.OK
_GATEWAY: Final = (502, 503, 504)
_DOOR: Final = (401, 403, 407, 429)
NOT_SAID: Final = (
    "; on purpose the service tells no caller why. In its pod or on its machine `whatsapp-webhook doctor` tells which"
)


class Direct(NamedTuple):
    """What the service here takes, asked without anything between; *is_alone*: no other instance has its inbox."""

    greets: bool
    takes: bool
    is_alone: bool

    def another(self) -> tuple[str, str]:
        """Say what it means that one was refused, and not by this instance."""
        if self.is_alone:
            return (
                "Another instance answered, which has other credentials: the one here was asked nothing.",
                "Look at where the URL's name and the proxy lead: to another release?",
            )
        remedy = (
            "Run the doctor in each pod, and look at where the URL leads. Where all take line 1 of the credentials, "
            "have the proxy pass query string, header and body on as they are."
        )
        return "Another instance answered: it has other credentials, or the proxy changes what is asked.", remedy


def who(caller: Caller, token: bytes) -> tuple[Finding, bool]:
    """Find who answers, by a GET with nothing in it, which the service refuses. Says too whether it was the service.

    Something before the service may put its own pages in the place of refusals: then a handshake with *token* tells,
    which may be empty.
    """
    answer = caller.look()
    check = CheckId.ANSWER
    if answer.text == ANSWERS[errors.HandshakeRefused].text:
        return Finding.ok(check, "The service answers."), True
    if _wants_certificate(answer):
        what = "Something before the service wants a client certificate, which Meta has and this machine has not."
        remedy = "docs/kubernetes.md tells of it. Whether Meta gets through, `so far` in the pod's doctor shows."
        return Finding.unknown(check, what, remedy), False
    if answer.status and token:
        greeted, challenge = caller.greet(token)
        if greeted.status == OK and greeted.body == challenge.encode():
            return Finding.ok(
                check, "The service answers; something before it has pages of its own for refusals."
            ), True
    if answer.text == WRONG_PATH and answer.status == HTTPStatus.NOT_FOUND:
        return Finding.wrong(check, *_ELSEWHERE), False
    return Finding.wrong(check, *stranger(answer)), False


def otherwise(caller: Caller, addresses: Sequence[str]) -> Finding | None:
    """Find an address that answers otherwise than the others, where the name has several; None for none."""
    if len(addresses) < 2:  # noqa: PLR2004
        return None
    refusal = ANSWERS[errors.HandshakeRefused].text
    found = {address: caller.look(address) for address in addresses}
    usual = any(answer.text == refusal for answer in found.values())
    for address, answer in found.items():
        if answer.text != refusal and usual and not _wants_certificate(answer):
            what, remedy = stranger(answer)
            return Finding.wrong(CheckId.ANSWER, f"At {address}, one of {len(addresses)} addresses: {what}", remedy)
    return None


_ELSEWHERE: Final = (
    "The service answers, but not at this path: its own is WEBHOOK_PATH, which is /webhooks unless it is set.",
    "Enter the URL with that path, or have the proxy pass it on unchanged.",
)


def _wants_certificate(answer: CallerResponse) -> bool:
    return answer.why == WANTS_CERTIFICATE or "No required SSL certificate was sent" in answer.text


def stranger_now(answer: CallerResponse) -> tuple[str, str]:
    """Say what such an answer tells after the service had answered already."""
    if answer.status not in (*_GATEWAY, HTTPStatus.TOO_MANY_REQUESTS):
        return stranger(answer)
    by = f" ({answer.server})" if answer.server else ""
    remedy = (
        "A limit on how often it may be called? Exempt the path. Or one of several things behind it is broken: run "
        "this again, and look at each."
    )
    return f"The service answered before, and now something before it answers {answer.status}{by}.", remedy


def stranger(answer: CallerResponse) -> tuple[str, str]:
    """Say what an answer tells that is not the service's, and what to do."""
    by = f" ({answer.server})" if answer.server else ""
    if not answer.status:
        return f"No answer: {answer.why}.", "Does the proxy speak HTTP here, and is the service behind it running?"
    if 300 <= answer.status < 400:  # noqa: PLR2004  redirection
        return (
            f"It redirects to {answer.location or 'somewhere else'}{by}, and Meta follows nothing.",
            "Enter the URL that it leads to, or take the redirect off this path.",
        )
    if answer.status in _GATEWAY:
        return (
            f"A proxy answers {answer.status}{by}: nothing that works is behind it.",
            "Is the service running and ready (its /readyz), and does the proxy send to its address and port?",
        )
    if answer.status in _DOOR:
        return (
            f"Something before the service answers {answer.status}{by}: a login, a firewall, a limit.",
            "Let everybody through to this one path: Meta signs what it sends, and the service checks that.",
        )
    if answer.status == HTTPStatus.NOT_FOUND:
        return (
            f"404{by}, and not the service's: no proxy rule sends this path to it.",
            "Look at host and path of the URL, and at the proxy's rules.",
        )
    return (
        f"Something else answers, with {answer.status}{by}: not this service.",
        "Look at host and path of the URL, and at where the proxy sends them.",
    )
