"""The handshake as Meta does it, and why it fails."""

from collections.abc import Callable, Iterator
from typing import Final

from service import errors
from service.doctor.caller import Caller, CallerResponse
from service.doctor.checks.responder import OK, REASON_HIDDEN, DirectResult, other_response_later
from service.doctor.finding import Finding
from service.outcomes import CheckId
from service.receiver.responses import ANSWERS

# Every kind of character that a challenge may have; a proxy that decodes and re-encodes the query changes some of them.
ODD_CHALLENGE: Final = "Aa0._~+/=-+9"
REPEATED_HANDSHAKES: Final = 3  # more handshakes after the first, in case several instances answer in turn
HANDSHAKE_LIMIT_SECONDS: Final = 6.0  # Meta's timeout
NOT_RECEIVED: Final = ""


def check(
    caller: Caller,
    token: bytes,
    reason: Callable[[], str | None],
    direct: DirectResult | None,
    *,
    limit: float = HANDSHAKE_LIMIT_SECONDS,
) -> Iterator[Finding]:
    """Do the handshake as Meta does, which must take no longer than *limit* seconds.

    *reason* returns why the service on this machine refused a handshake: NOT_RECEIVED if it received none, None if it
    can't be asked.
    """
    response, challenge = caller.handshake(token)
    if response.status == OK and response.body == challenge.encode():
        if response.seconds > limit:
            yield Finding.wrong(
                CheckId.HANDSHAKE,
                f"The challenge came back after {response.seconds:.1f} s; Meta waits at most six seconds.",
                "Check whether the service lacks CPU or is started for each request, and whether the proxy in front of "
                "it is slow.",
            )
            return
        for _ in range(REPEATED_HANDSHAKES):
            response, challenge = caller.handshake(token)
            if response.body != challenge.encode():
                yield Finding.wrong(CheckId.HANDSHAKE, *_not_always(response))
                return
        yield Finding.ok(CheckId.HANDSHAKE, "The handshake succeeds: the challenge came back unchanged.")
        odd, challenge = caller.handshake(token, ODD_CHALLENGE)
        if odd.body != challenge.encode():
            yield Finding.unknown(
                CheckId.QUERY_STRING,
                "The proxy changes the query string: +, /, = or % arrive changed, or not at all. With this verify "
                "token, Meta's handshake still succeeds.",
                "Configure the proxy to pass the query string on without decoding it; until then, use a verify token "
                "of letters and digits.",
            )
        return
    yield Finding.wrong(CheckId.HANDSHAKE, *_refused(response, challenge, reason(), direct))


def _not_always(response: CallerResponse) -> tuple[str, str]:
    if response.text != ANSWERS[errors.HandshakeRefused].text:
        return other_response_later(response)
    what = (
        "The same handshake was first accepted and then refused: several instances answer at this URL, and not all of "
        "them have this verify token."
    )
    return (
        what,
        (
            "Check where the URL's DNS name and the proxy send requests (to two releases?), and that all pods read the "
            "same Secret."
        ),
    )


def _refused(
    response: CallerResponse, challenge: str, reason: str | None, direct: DirectResult | None
) -> tuple[str, str]:
    if response.status == OK:
        content = "with other text beside the challenge" if challenge in response.text else "without the challenge"
        return (
            f"The handshake was answered 200, but {content}.",
            (
                "Something in front of the service changes its responses, or answers by itself: configure it to pass "
                "responses on unchanged."
            ),
        )
    if response.text != ANSWERS[errors.HandshakeRefused].text:
        return other_response_later(response)
    verifies = direct is not None and direct.verifies
    if direct and direct.verifies and reason == NOT_RECEIVED:
        return direct.another()
    put_same = (
        "Put the same token into line 1 of verify-token here and at the service; then run `whatsapp-webhook subscribe "
        "--force` to register it with Meta."
    )
    known = {
        "wrong_token": ("The service does not accept this verify token.", put_same),
        "not_configured": (
            "The service has no verify token.",
            "Create the file verify-token; the service's /readyz reports where.",
        ),
    }
    if reason in known and not verifies:
        return known[reason]
    if reason or verifies:
        outcome = f" ({reason})" if reason else ""
        return (
            f"The service did not receive the query string as it was sent{outcome}: the proxy changes or drops it.",
            "Configure the proxy to pass the query string on unchanged; in nginx, remove a `rewrite` that ends in `?`.",
        )
    return (
        (
            "The handshake was refused: either the service does not accept this verify token, or a proxy changes the "
            f"query string. {REASON_HIDDEN}"
        ),
        put_same,
    )
