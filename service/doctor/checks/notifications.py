"""What becomes of signed notifications: taken by the service, or changed or refused by something before it."""

from collections.abc import Callable, Iterator
from http import HTTPStatus
from typing import Final, NamedTuple

from service import errors
from service.credentials import Credentials
from service.doctor.caller import Caller, CallerResponse
from service.doctor.checks.responder import NOT_SAID, OK, Direct, stranger_now
from service.doctor.finding import Finding
from service.meta import catalogue
from service.outcomes import CheckId
from service.receiver.responses import ANSWERS, FAILED

LARGE_BODY_BYTES: Final = 3_000_000  # bytes: what Meta may send


class Sides(NamedTuple):
    """What is known of both ends: of the service asked directly (None: it was not), and of Meta.

    *is_the_apps* says that line 1 of the app secrets here is the one that Meta signs with; *refused* counts the
    signatures that the service here has refused, None where it can't be asked.
    """

    direct: Direct | None
    is_the_apps: bool
    refused: Callable[[], float | None]


def send(caller: Caller, secret: bytes, sides: Sides, taken: list[str]) -> Iterator[Finding]:
    """Send a signed test notification in which everything is that a proxy may change, then 3 MB.

    The ids of messages that were answered 200 are added to *taken*.
    """
    before = sides.refused()
    answer = _sent(caller, secret, taken, odd=True)
    if not _is_taken(answer):
        plain = _sent(caller, secret, taken)
        here = before is None or sides.refused() != before
        yield Finding.wrong(CheckId.NOTIFICATION, *_not_taken(answer, plain, sides, here=here))
        return
    other, _ = catalogue.marked()
    if caller.notify(other, secret, encoded=True).status == OK:
        yield Finding.wrong(CheckId.NOTIFICATION, *_FOR_US)
        return
    yield Finding.ok(CheckId.NOTIFICATION, "A signed test notification was answered 200.")
    answer = _sent(caller, secret, taken, size=LARGE_BODY_BYTES)
    if _is_taken(answer):
        yield Finding.ok(CheckId.BODY_LIMIT, "3 MB went through, as much as Meta sends.")
    else:
        yield Finding.wrong(CheckId.BODY_LIMIT, *_too_large(answer))


def _sent(caller: Caller, secret: bytes, taken: list[str], *, odd: bool = False, size: int = 0) -> CallerResponse:
    body, message = catalogue.marked(odd=odd, size=size)
    answer = caller.notify(body, secret)
    if _is_taken(answer):
        taken.append(message)
    return answer


def _is_taken(answer: CallerResponse) -> bool:
    """Say whether it is the service's own 200, which has no body."""
    return answer.status == OK and not answer.body


_FOR_US: Final = (
    "Something before the service answers 200 in its place, also to what the service refuses.",
    "Have it pass POSTs on, and their answers as they are: what it takes so, Meta never sends again.",
)
_BY_THE_SERVICE: Final = {
    ANSWERS[errors.Encoded].text: (
        "The proxy encodes bodies (415).",
        "Have it pass bodies on as they are, without Content-Encoding.",
    ),
    ANSWERS[errors.InboxUnavailable].text: (
        "The service can't keep it now (503).",
        "Its /readyz says why: `whatsapp-webhook ready` in its pod.",
    ),
}


def _not_taken(answer: CallerResponse, plain: CallerResponse, sides: Sides, *, here: bool) -> tuple[str, str]:
    """Say why: *plain* is the answer to one that has less in it to change, *here* whether the service here refused."""
    if answer.status == OK:
        return _FOR_US
    if answer.text == ANSWERS[errors.BadSignature].text:
        return _not_signed(plain, sides, here=here)
    if found := _BY_THE_SERVICE.get(answer.text):
        return found
    if answer.status == HTTPStatus.METHOD_NOT_ALLOWED:
        return "The proxy lets no POST through (405).", "Let GET and POST through to this path."
    what, remedy = stranger_now(answer)
    also = " A plain notification gets through, one with odd characters does not." if _is_taken(plain) else ""
    return what + also, remedy


def _not_signed(plain: CallerResponse, sides: Sides, *, here: bool) -> tuple[str, str]:
    if _is_taken(plain):
        return (
            "The proxy changes bodies: a plain one arrives as it was signed, one with escapes and blanks does not.",
            "Have the proxy pass bodies on byte for byte: no rewriting, no reformatting of JSON.",
        )
    if sides.direct and not here:
        return sides.direct.another()
    if sides.direct and sides.direct.takes:
        return (
            "Asked directly, the service takes such a notification: the proxy changes the body, or drops the header.",
            "Have the proxy pass X-Hub-Signature-256 and the body on as they are.",
        )
    if sides.is_the_apps:
        return (
            f"The secret here is the app's, and is not in force there, or the proxy changes what is signed{NOT_SAID}.",
            "Put it into line 1 of app-secret there too; or have the proxy pass header and body on as they are.",
        )
    return (
        f"The signature was refused: the app secret is not in force there, or the proxy changes it{NOT_SAID}.",
        "Put the app's secret into line 1 of app-secret: App dashboard > App settings > Basic > App secret.",
    )


_LARGE_BY_THE_SERVICE: Final = {
    ANSWERS[errors.TooLarge].text: (
        "The service takes less than 3 MB, which Meta may send.",
        "Set WEBHOOK_MAX_BODY_BYTES to 4194304 again.",
    ),
    ANSWERS[errors.BadSignature].text: (
        "The signature of 3 MB was refused, after that of a small notification was taken.",
        "Do several instances answer, of which one has another app secret? Or are large bodies changed on the way?",
    ),
    ANSWERS[errors.ReadTimeout].text: (
        "The service itself answers 3 MB with 408.",
        "A slow way wants WEBHOOK_READ_TIMEOUT.",
    ),
    FAILED.text: ("The service itself answers 3 MB with 500.", "Its log says why."),
    ANSWERS[errors.Overloaded].text: (
        "The service had no room for 3 MB just now (503).",
        "Try again; look at WEBHOOK_INFLIGHT_BYTES if it stays so.",
    ),
}


def _too_large(answer: CallerResponse) -> tuple[str, str]:
    if answer.status == OK:
        return _FOR_US
    if found := _LARGE_BY_THE_SERVICE.get(answer.text):
        return found
    by = f" ({answer.server})" if answer.server else ""
    if answer.status in (0, 413):
        told = f"with {answer.status}{by}" if answer.status else f"without an answer: {answer.why}"
        return (
            f"3 MB do not get through: something before the service refuses them, {told}.",
            "Raise its limit to 4 MB: client_max_body_size 4m; nginx.ingress.kubernetes.io/proxy-body-size: 4m.",
        )
    if answer.status in (429, 502, 503, 504):
        return stranger_now(answer)
    return (
        f"3 MB do not get through: something before the service answers {answer.status}{by}.",
        "Look at its log: at its limit, and whether it can keep a body of that size where it keeps them.",
    )


def ask_directly(
    caller: Caller, credentials: Credentials, taken: list[str], *, is_alone: bool
) -> tuple[Finding, Direct]:
    """Do the handshake and send a test notification with nothing between; as `send` of *taken*."""
    answer, challenge = caller.greet(credentials.verify_tokens[0])
    greets = answer.status == OK and answer.body == challenge.encode()
    sent = _sent(caller, credentials.app_secrets[0], taken)
    direct = Direct(greets, takes=sent.status == OK, is_alone=is_alone)
    check = CheckId.SERVICE_ITSELF
    if direct.greets and direct.takes:
        return Finding.ok(check, "Asked directly, it takes the handshake and a signed test notification."), direct
    if not answer.status:
        what, remedy = f"{caller.url}: {answer.why}.", "Is the service running? `whatsapp-webhook serve` says why not."
    elif sent.text == ANSWERS[errors.InboxUnavailable].text:
        what, remedy = "Asked directly, it can't keep a notification (503).", "As /readyz says."
    elif FAILED.text in (answer.text, sent.text):
        what, remedy = "Asked directly, it fails (500).", "Its log says why."
    else:
        which = "app secret" if greets else "verify token"
        what = f"Asked directly, it does not take line 1 of the credentials here as its {which}."
        remedy = (
            "Does it read the same directory (WEBHOOK_CREDENTIALS_DIR)? A mounted Secret arrives within 90 seconds."
        )
    return Finding.wrong(check, what, remedy), direct
