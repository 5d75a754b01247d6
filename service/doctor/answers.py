"""What answers at a URL: the service, or something before it, and what that does to requests and answers.

The service's own answers are fixed texts, so that they can be told from everybody else's.
"""

from collections.abc import Callable, Iterator
from typing import Final, NamedTuple

from service import errors
from service.app import ANSWERS, WRONG_PATH
from service.credentials import Credentials
from service.doctor.caller import Answer, Caller
from service.doctor.finding import Finding
from service.meta import catalogue

OURS: Final = {answer.text: error for error, answer in ANSWERS.items()}
# Every character that a challenge may have; a proxy that decodes a query and writes it anew stumbles over some of them.
ODD: Final = "Aa0._~+/=-+9"
LARGE: Final = 3_000_000  # bytes: what Meta may send
LATE: Final = 6.0  # seconds that Meta gives the handshake
_GATEWAY: Final = (502, 503, 504)
_DOOR: Final = (401, 403, 407, 429)
_NOT_SAID: Final = (
    "; the service says to nobody why. In its pod or on its machine `whatsapp-webhook doctor` tells which it is"
)


class Direct(NamedTuple):
    """What the service of this machine or pod takes, asked without anything between."""

    greets: bool
    takes: bool


def who(caller: Caller) -> tuple[Finding, bool]:
    """Find who answers, by a GET with nothing in it, which the service refuses. Says too whether it was the service."""
    answer = caller.look()
    check = "answer"
    if answer.text == ANSWERS[errors.HandshakeRefused].text:
        return Finding.ok(check, "The service answers."), True
    if answer.text == WRONG_PATH and answer.status == 404:  # noqa: PLR2004  not found
        return (
            Finding.wrong(
                check,
                "The service answers, but not at this path: its own is WEBHOOK_PATH, /webhooks without.",
                "Enter the URL with that path, or have the proxy pass it on unchanged.",
            ),
            False,
        )
    return Finding.wrong(check, *_stranger(answer)), False


def _stranger(answer: Answer) -> tuple[str, str]:
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
    if answer.status == 404:  # noqa: PLR2004  not found
        return (
            f"404{by}, and not the service's: no proxy rule sends this path to it.",
            "Look at host and path of the URL, and at the proxy's rules.",
        )
    return (
        f"Something else answers, with {answer.status}{by}: not this service.",
        "Look at host and path of the URL, and at where the proxy sends them.",
    )


def greeting(caller: Caller, token: bytes, why: Callable[[], str | None], direct: Direct | None) -> Iterator[Finding]:
    """Do the handshake as Meta does; *why* says what the service itself saw to refuse, None where it can't be asked."""
    answer, challenge = caller.greet(token)
    if answer.status == 200 and answer.body == challenge.encode():  # noqa: PLR2004
        yield Finding.ok("handshake", "The challenge came back, as Meta wants it.")
        odd, wanted = caller.greet(token, ODD)
        if odd.body != wanted.encode():
            yield Finding.wrong(
                "query string",
                "The proxy changes the query string: + / = or % in it came otherwise, or not at all.",
                "Have the proxy pass the query on as it is, undecoded; until then use a token of letters and digits.",
            )
        return
    yield Finding.wrong("handshake", *_refused(answer, challenge, why(), direct))


def _refused(answer: Answer, challenge: str, why: str | None, direct: Direct | None) -> tuple[str, str]:
    if answer.status == 200:  # noqa: PLR2004
        told = "with something added" if challenge in answer.text else "and something else"
        return (
            f"200 came, {told} instead of the bare challenge.",
            "Something before the service changes its answers, or answers itself: have it pass them on as they are.",
        )
    if answer.text != ANSWERS[errors.HandshakeRefused].text:
        return _stranger(answer)
    renew = "Put the token that counts into line 1 of verify-token, here and there; `subscribe` then tells Meta."
    if why == "wrong_token" and not (direct and direct.greets):
        return "The verify token is not one in force in the service.", renew
    if (why and why != "not_configured") or (direct and direct.greets):
        saw = f" ({why})" if why else ""
        return (
            f"The service did not get what was asked{saw}: the proxy changes or drops the query string.",
            "Have the proxy pass the query on as it is: in nginx no rewrite that ends in ?",
        )
    if why == "not_configured":
        return "No verify token is in force in the service.", "Make the file verify-token: its /readyz says where."
    return f"Refused: the verify token is not one in force, or a proxy changes the query string{_NOT_SAID}.", renew


class Sent(NamedTuple):
    """What came of the signed notifications: findings, and the message ids of those that were taken."""

    findings: list[Finding]
    messages: list[str]


def notifications(caller: Caller, secret: bytes, direct: Direct | None) -> Sent:
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
    return _stranger(answer)


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
        f"The signature was refused: the app secret is not in force there, or the proxy changes it{_NOT_SAID}.",
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
