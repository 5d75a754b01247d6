"""What becomes of signed notifications: taken by the service, or changed or refused by something before it."""

from typing import Final, NamedTuple

from service import errors
from service.app import ANSWERS
from service.credentials import Credentials
from service.doctor.answers import NOT_SAID, Direct, stranger
from service.doctor.caller import Answer, Caller
from service.doctor.finding import Finding
from service.meta import catalogue

LARGE: Final = 3_000_000  # bytes: what Meta may send


class Sent(NamedTuple):
    """What came of the signed notifications: findings, and the message ids of those that were taken."""

    findings: list[Finding]
    messages: list[str]


def send(caller: Caller, secret: bytes, direct: Direct | None) -> Sent:
    """Send a signed test notification in which everything is that a proxy may change, then 3 MB."""
    found: list[Finding] = []
    taken: list[str] = []
    body, message = catalogue.marked(odd=True)
    answer = caller.notify(body, secret)
    if answer.status == 200:  # noqa: PLR2004
        found.append(Finding.ok("notification", "A signed test notification was answered 200."))
        taken.append(message)
    else:
        plain, message = catalogue.marked()
        second = caller.notify(plain, secret)
        taken += [message] if second.status == 200 else []  # noqa: PLR2004
        found.append(Finding.wrong("notification", *_not_taken(answer, second, direct)))
        return Sent(found, taken)
    large, message = catalogue.marked(size=LARGE)
    answer = caller.notify(large, secret)
    if answer.status == 200:  # noqa: PLR2004
        found.append(Finding.ok("body limit", "3 MB went through, as much as Meta sends."))
        taken.append(message)
    else:
        found.append(Finding.wrong("body limit", *_too_large(answer)))
    return Sent(found, taken)


def _not_taken(answer: Answer, plain: Answer, direct: Direct | None) -> tuple[str, str]:
    if answer.text == ANSWERS[errors.BadSignature].text:
        return _not_signed(plain, direct)
    if answer.text == ANSWERS[errors.Encoded].text:
        return "The proxy encodes bodies (415).", "Have it pass bodies on as they are, without Content-Encoding."
    if answer.text == ANSWERS[errors.InboxUnavailable].text:
        return "The service can't keep it now (503).", "Its /readyz says why: `whatsapp-webhook ready` in its pod."
    if answer.status == 405:  # noqa: PLR2004  method not allowed
        return "The proxy lets no POST through (405).", "Let GET and POST through to this path."
    return stranger(answer)


def _not_signed(plain: Answer, direct: Direct | None) -> tuple[str, str]:
    if plain.status == 200:  # noqa: PLR2004
        return (
            "The proxy changes bodies: a plain one arrives as it was signed, one with escapes and blanks does not.",
            "Have the proxy pass bodies on byte for byte: no rewriting, no reformatting of JSON.",
        )
    if direct and direct.takes:
        return (
            "Asked directly, the service takes such a notification: the proxy changes the body, or drops the header.",
            "Have the proxy pass X-Hub-Signature-256 and the body on as they are.",
        )
    return (
        f"The signature was refused: the app secret is not in force there, or the proxy changes it{NOT_SAID}.",
        "Put the app's secret into line 1 of app-secret: App dashboard > App settings > Basic > App secret.",
    )


def _too_large(answer: Answer) -> tuple[str, str]:
    if answer.text == ANSWERS[errors.TooLarge].text:
        return (
            "The service takes less than 3 MB, which Meta may send.",
            "Set WEBHOOK_MAX_BODY_BYTES to 4194304 again.",
        )
    if answer.text == ANSWERS[errors.Overloaded].text:
        return (
            "The service had no room for 3 MB just now (503).",
            "Try again; look at WEBHOOK_BODIES_BYTES if it stays so.",
        )
    by = f" ({answer.server})" if answer.server else ""
    if answer.status in (0, 413):
        told = f"with {answer.status}{by}" if answer.status else f"without an answer: {answer.why}"
        return (
            f"3 MB do not get through: something before the service refuses them, {told}.",
            "Raise its limit to 4 MB: client_max_body_size 4m; nginx.ingress.kubernetes.io/proxy-body-size: 4m.",
        )
    return (
        f"3 MB do not get through: something before the service answers {answer.status}{by}.",
        "Look at its log: at its limit, and whether it can keep a body of that size where it keeps them.",
    )


def ask_directly(caller: Caller, credentials: Credentials) -> tuple[Finding, Direct, list[str]]:
    """Do the handshake and send a test notification with nothing between; gives the ids of messages that were taken."""
    answer, challenge = caller.greet(credentials.verify_tokens[0])
    greets = answer.status == 200 and answer.body == challenge.encode()  # noqa: PLR2004
    body, message = catalogue.marked()
    sent = caller.notify(body, credentials.app_secrets[0])
    takes = sent.status == 200  # noqa: PLR2004
    check, direct = "service itself", Direct(greets, takes)
    if greets and takes:
        found = Finding.ok(check, "Asked directly, it takes the handshake and a signed test notification.")
        return found, direct, [message]
    if not answer.status:
        what, remedy = f"{caller.url}: {answer.why}.", "Is the service running? `whatsapp-webhook serve` says why not."
    elif sent.text == ANSWERS[errors.InboxUnavailable].text:
        what, remedy = "Asked directly, it can't keep a notification (503).", "As /readyz says."
    else:
        which = "verify token" if not greets else "app secret"
        what = f"Asked directly, it does not take line 1 of the credentials here as its {which}."
        remedy = (
            "Does it read the same directory (WEBHOOK_CREDENTIALS_DIR)? A mounted Secret arrives within 90 seconds."
        )
    return Finding.wrong(check, what, remedy), direct, [message] if takes else []
