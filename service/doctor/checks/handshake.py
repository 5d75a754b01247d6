"""The handshake as Meta does it, and what keeps it from succeeding."""

from collections.abc import Callable, Iterator
from typing import Final

from service import errors
from service.doctor.caller import Caller, CallerResponse
from service.doctor.checks.responder import NOT_SAID, OK, Direct, stranger_now
from service.doctor.finding import Finding
from service.outcomes import CheckId
from service.receiver.responses import ANSWERS

# Every character that a challenge may have; a proxy that decodes a query and writes it anew stumbles over some of them.
ODD: Final = "Aa0._~+/=-+9"
REPEATED_HANDSHAKES: Final = 3  # handshakes more, since several things may answer in turn
HANDSHAKE_LIMIT_SECONDS: Final = 6.0  # seconds that Meta gives the handshake
NOT_HERE: Final = ""


def look(
    caller: Caller,
    token: bytes,
    why: Callable[[], str | None],
    direct: Direct | None,
    *,
    late: float = HANDSHAKE_LIMIT_SECONDS,
) -> Iterator[Finding]:
    """Do the handshake as Meta does; *why* says what the service here saw to refuse.

    That is None where it can't be asked, and NOT_HERE where it was asked nothing. An answer after *late* seconds is too
    late.
    """
    answer, challenge = caller.greet(token)
    if answer.status == OK and answer.body == challenge.encode():
        if answer.seconds > late:
            yield Finding.wrong(
                CheckId.HANDSHAKE,
                f"The challenge came back after {answer.seconds:.1f} s, and Meta waits for six.",
                "Is the service starved of CPU, or started for each request? Or is what stands before it slow?",
            )
            return
        for _ in range(REPEATED_HANDSHAKES):
            answer, challenge = caller.greet(token)
            if answer.body != challenge.encode():
                yield Finding.wrong(CheckId.HANDSHAKE, *_not_always(answer))
                return
        yield Finding.ok(CheckId.HANDSHAKE, "The challenge came back, as Meta wants it.")
        odd, wanted = caller.greet(token, ODD)
        if odd.body != wanted.encode():
            yield Finding.unknown(
                CheckId.QUERY_STRING,
                "The proxy changes the query string: + / = or % in it came otherwise, or not at all. What Meta sends "
                "with this token gets through.",
                "Have the proxy pass the query on as it is, undecoded; until then use a token of letters and digits.",
            )
        return
    yield Finding.wrong(CheckId.HANDSHAKE, *_refused(answer, challenge, why(), direct))


def _not_always(answer: CallerResponse) -> tuple[str, str]:
    if answer.text != ANSWERS[errors.HandshakeRefused].text:
        return stranger_now(answer)
    what = (
        "The same handshake was taken at first and refused then: several instances answer at this URL, and not all of "
        "them have this verify token."
    )
    return what, "Look at where the URL's name and the proxy lead: to two releases? Do all pods read the same Secret?"


def _refused(answer: CallerResponse, challenge: str, why: str | None, direct: Direct | None) -> tuple[str, str]:
    if answer.status == OK:
        told = "with something added" if challenge in answer.text else "and something else"
        return (
            f"200 came, {told} instead of the bare challenge.",
            "Something before the service changes its answers, or answers itself: have it pass them on as they are.",
        )
    if answer.text != ANSWERS[errors.HandshakeRefused].text:
        return stranger_now(answer)
    greets = direct is not None and direct.greets
    if direct and direct.greets and why == NOT_HERE:
        return direct.another()
    renew = "Put the same token into line 1 of verify-token, here and there; then `subscribe --force` tells Meta."
    known = {
        "wrong_token": ("The verify token is not one in force in the service.", renew),
        "not_configured": (
            "No verify token is in force in the service.",
            "Make the file verify-token: its /readyz says where.",
        ),
    }
    if why in known and not greets:
        return known[why]
    if why or greets:
        saw = f" ({why})" if why else ""
        return (
            f"The service did not get what was asked{saw}: the proxy changes or drops the query string.",
            "Have the proxy pass the query on as it is: in nginx no rewrite that ends in ?",
        )
    return f"Refused: the verify token is not one in force, or a proxy changes the query string{NOT_SAID}.", renew
