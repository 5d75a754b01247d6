"""Whether signed notifications are accepted by the service, or are refused or changed by something in front of it."""

from collections.abc import Callable, Iterator
from http import HTTPStatus
from typing import Final, NamedTuple

from service import errors
from service.credentials import APP_SECRET, VERIFY_TOKEN, Credentials
from service.doctor.caller import Caller, CallerResponse
from service.doctor.checks.responder import OK, REASON_HIDDEN, DirectResult, other_response_later
from service.doctor.finding import Finding
from service.meta import catalogue
from service.outcomes import CheckId
from service.receiver.responses import ANSWERS, FAILED

LARGE_BODY_BYTES: Final = 3_000_000  # Meta's largest notification


class Known(NamedTuple):
    """What helps to explain a refusal.

    *direct* is None if the service could not be asked directly. *is_the_apps*: line 1 of the app secrets here is the
    one that Meta signs with. *refused* returns how many signatures the service on this machine has refused, None if it
    can't be asked.
    """

    direct: DirectResult | None
    is_the_apps: bool
    refused: Callable[[], float | None]


def check(caller: Caller, secret: bytes, known: Known, test_ids: list[str]) -> Iterator[Finding]:
    """Send a signed test notification with everything in it that a proxy may change, then one of 3 MB.

    The ids of messages that are answered 200 are added to *test_ids*.
    """
    before = known.refused()
    response = _send(caller, secret, test_ids, odd=True)
    if not _is_accepted(response):
        plain = _send(caller, secret, test_ids)
        is_refused_here = before is None or known.refused() != before
        yield Finding.wrong(CheckId.NOTIFICATION, *_rejected(response, plain, known, is_refused_here=is_refused_here))
        return
    body, _ = catalogue.findable_test()
    if caller.notify(body, secret, encoded=True).status == OK:
        yield Finding.wrong(CheckId.NOTIFICATION, *_ANSWERED_FOR_THE_SERVICE)
        return
    yield Finding.ok(CheckId.NOTIFICATION, "A signed test notification was answered 200.")
    response = _send(caller, secret, test_ids, size=LARGE_BODY_BYTES)
    if _is_accepted(response):
        yield Finding.ok(CheckId.BODY_LIMIT, "A 3 MB notification, the largest that Meta sends, was answered 200.")
    else:
        yield Finding.wrong(CheckId.BODY_LIMIT, *_too_large(response))


def _send(caller: Caller, secret: bytes, test_ids: list[str], *, odd: bool = False, size: int = 0) -> CallerResponse:
    body, message = catalogue.findable_test(odd=odd, size=size)
    response = caller.notify(body, secret)
    if _is_accepted(response):
        test_ids.append(message)
    return response


def _is_accepted(response: CallerResponse) -> bool:
    """Return whether the response is the service's own 200, which has no body."""
    return response.status == OK and not response.body


_ANSWERED_FOR_THE_SERVICE: Final = (
    "Something in front of the service answers 200 in its place, even to requests that the service refuses.",
    (
        "Configure it to pass POST requests and their responses on unchanged: Meta does not retry a notification that "
        "was answered 200."
    ),
)
_UNCHANGED: Final = "Configure the proxy to pass the X-Hub-Signature-256 header and the body on unchanged."
_BY_THE_SERVICE: Final = {
    ANSWERS[errors.Encoded].text: (
        "The proxy encodes request bodies (415).",
        "Configure it to pass bodies on unchanged, without Content-Encoding.",
    ),
    ANSWERS[errors.InboxUnavailable].text: (
        "The service can't store notifications now (503).",
        "Its /readyz reports why: run `whatsapp-webhook ready` in its pod.",
    ),
}


def _rejected(
    response: CallerResponse, plain: CallerResponse, known: Known, *, is_refused_here: bool
) -> tuple[str, str]:
    """Return why; *plain* is the response to a notification with nothing in it that a proxy usually changes."""
    if response.status == OK:
        return _ANSWERED_FOR_THE_SERVICE
    if response.text == ANSWERS[errors.BadSignature].text:
        return _bad_signature(plain, known, is_refused_here=is_refused_here)
    if found := _BY_THE_SERVICE.get(response.text):
        return found
    if response.status == HTTPStatus.METHOD_NOT_ALLOWED:
        return "The proxy does not let POST requests through (405).", "Allow GET and POST for this path."
    what, remedy = other_response_later(response)
    also = " A plain notification is accepted, one with special characters is not." if _is_accepted(plain) else ""
    return what + also, remedy


def _bad_signature(plain: CallerResponse, known: Known, *, is_refused_here: bool) -> tuple[str, str]:
    if _is_accepted(plain):
        return (
            (
                "The proxy changes the body: a plain notification is accepted, but the signature of one with escapes "
                "and spaces is refused."
            ),
            "Configure the proxy to pass the body on byte for byte: no rewriting, no reformatting of JSON.",
        )
    if known.direct and not is_refused_here:
        return known.direct.another()
    if known.direct and known.direct.accepts:
        return (
            (
                "Sent directly, such a notification is accepted: the proxy changes the body, or drops the "
                "X-Hub-Signature-256 header."
            ),
            _UNCHANGED,
        )
    if known.is_the_apps:
        return (
            (
                "The signature was refused, although the secret here is the app's: either the service does not accept "
                f"it, or the proxy changes the body or the header. {REASON_HIDDEN}"
            ),
            f"Put this secret into line 1 of the service's app-secret. If that does not help: {_UNCHANGED}",
        )
    return (
        (
            "The signature was refused: either the service does not accept this app secret, or the proxy changes the "
            f"body or the header. {REASON_HIDDEN}"
        ),
        "Put the app's secret into line 1 of app-secret: App dashboard > App settings > Basic > App secret.",
    )


_LARGE_BY_THE_SERVICE: Final = {
    ANSWERS[errors.TooLarge].text: (
        "The service's own body limit is below 3 MB, which Meta may send.",
        "Set WEBHOOK_MAX_BODY_BYTES to 4194304, the default.",
    ),
    ANSWERS[errors.BadSignature].text: (
        "The signature of a 3 MB notification was refused, although that of a small one was accepted.",
        (
            "Check whether several instances answer, one of them with another app secret, and whether large bodies are "
            "changed on the way."
        ),
    ),
    ANSWERS[errors.ReadTimeout].text: (
        "The service timed out while it read a 3 MB notification (408).",
        "If the network is slow, raise WEBHOOK_READ_TIMEOUT.",
    ),
    FAILED.text: ("The service failed on a 3 MB notification (500).", "See the service's log."),
    ANSWERS[errors.Overloaded].text: (
        "The service was overloaded when a 3 MB notification arrived (503).",
        "Try again; if it happens again, raise WEBHOOK_INFLIGHT_BYTES.",
    ),
}


def _too_large(response: CallerResponse) -> tuple[str, str]:
    if response.status == OK:
        return _ANSWERED_FOR_THE_SERVICE
    if found := _LARGE_BY_THE_SERVICE.get(response.text):
        return found
    by = f" ({response.server})" if response.server else ""
    if response.status in (0, 413):
        what = f"A 3 MB notification is rejected with 413 by something in front of the service{by}."
        if not response.status:
            what = (
                f"A 3 MB notification is rejected without a response ({response.error}) by something in front of the "
                "service."
            )
        return (
            what,
            "Raise its body limit to 4 MB: client_max_body_size 4m; nginx.ingress.kubernetes.io/proxy-body-size: 4m.",
        )
    if response.status in (429, 502, 503, 504):
        return other_response_later(response)
    return (
        f"A 3 MB notification is rejected with {response.status} by something in front of the service{by}.",
        "See its log; check its body limit, and whether it has room to buffer a body of that size.",
    )


def check_directly(
    caller: Caller, credentials: Credentials, test_ids: list[str], *, is_alone: bool
) -> tuple[Finding, DirectResult]:
    """Do the handshake and send a test notification to the service without a proxy; adds to *test_ids* as `check`."""
    response, challenge = caller.handshake(credentials.verify_tokens[0])
    verifies = response.status == OK and response.body == challenge.encode()
    notified = _send(caller, credentials.app_secrets[0], test_ids)
    direct = DirectResult(verifies, accepts=notified.status == OK, is_alone=is_alone)
    name = CheckId.DIRECT
    if direct.verifies and direct.accepts:
        return Finding.ok(name, "Without a proxy, the service accepts the handshake and a signed notification."), direct
    if not response.status:
        what = f"No response from {caller.url}: {response.error}."
        remedy = "Check that the service is running; `whatsapp-webhook serve` reports why it does not start."
    elif notified.text == ANSWERS[errors.InboxUnavailable].text:
        what, remedy = (
            "The service can't store a notification that is sent to it directly (503).",
            "/readyz reports why.",
        )
    elif FAILED.text in (response.text, notified.text):
        what, remedy = "The service fails on requests that are sent to it directly (500).", "See the service's log."
    else:
        which = APP_SECRET if verifies else VERIFY_TOKEN
        what = f"The service does not accept line 1 of {which} here."
        remedy = (
            "Check that it reads the same directory (WEBHOOK_CREDENTIALS_DIR). A changed Secret reaches the pod within "
            "90 seconds."
        )
    return Finding.wrong(name, what, remedy), direct
