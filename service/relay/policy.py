"""Decide what an answer means, and what follows from it: delivered, retry, skip or dead letter.

Pure: time and randomness are arguments. Times are in milliseconds. Sources: "Exponential Backoff And Jitter" (AWS
Architecture Blog: full jitter), RFC 9110 section 10.2.3 (Retry-After), section 15 (status codes).
"""

from collections.abc import Callable, Collection
from email.utils import parsedate_to_datetime
from enum import Enum, auto
from typing import Final

from service.outcomes import AttemptOutcome, DeadLetterReason
from service.relay.delivery_response import DeliveryResponse
from service.storage.deliveries import Claim, Ruling, Verdict
from service.storage.delivery_policy import DeliveryPolicy

GONE: Final = 410
MAX_MISCONFIGURED_BACKOFF_MS: Final = 60_000  # so that no queue waits long after somebody repaired the configuration
_TOO_MANY_REQUESTS: Final = 429
_SUCCESS: Final = range(200, 300)
_REDIRECTION: Final = range(300, 400)
_CHECK_CREDENTIALS: Final = (
    "check the signing secret (secretFile) and the credentials in `headers`, here and in the application"
)
_CHECK_URL: Final = "check `url`: this path does not accept these POST requests"
# The statuses that say that the destination, not an event, is wrong; with what to do.
_REMEDIES: Final = {
    401: _CHECK_CREDENTIALS,
    403: _CHECK_CREDENTIALS,
    404: _CHECK_URL,
    405: _CHECK_URL,
    414: "shorten `url`",
    415: "check `format`, and which Content-Type the application accepts: application/json is sent",
    501: _CHECK_URL,
}
_CHECK_REDIRECT: Final = "set `url` to the address that the redirect leads to: redirects are not followed"


class AnswerKind(Enum):
    """What an answer means; `kind_of` is the table."""

    DELIVERED = auto()
    MISCONFIGURED = auto()  # the destination is; never counted against a message
    PERMANENT = auto()  # for this message
    DISABLED = auto()
    RETRY = auto()  # the destination is up, and may accept it later
    FAILED = auto()  # the destination may be down

    @property
    def shows_that_it_is_up(self) -> bool:
        """Return whether the destination works, even if it did not accept this message."""
        return self not in (AnswerKind.FAILED, AnswerKind.MISCONFIGURED)


def kind_of(status: int, permanent: Collection[int]) -> AnswerKind:
    """Return what a status means (0: no response); *permanent* are the destination's `permanentStatuses`."""
    if status in _SUCCESS:
        return AnswerKind.DELIVERED
    if status == GONE:
        return AnswerKind.DISABLED
    if status in permanent:
        return AnswerKind.PERMANENT
    if status in _REMEDIES or status in _REDIRECTION:
        return AnswerKind.MISCONFIGURED
    if 0 < status < 500 and status != _TOO_MANY_REQUESTS:  # noqa: PLR2004  not a server error
        return AnswerKind.RETRY
    return AnswerKind.FAILED


def outcome_of(status: int) -> AttemptOutcome:
    """Return the outcome, a label of metrics, of an attempt that got this status."""
    if status in _SUCCESS:
        return AttemptOutcome.DELIVERED
    if status in _REDIRECTION:
        return AttemptOutcome.REDIRECT
    if status < 600:  # noqa: PLR2004  the classes of RFC 9110
        return AttemptOutcome(f"{status // 100}xx")
    return AttemptOutcome.ERROR


def remedy_of(status: int) -> str:
    """Return what to do if the destination answers with a status that says that it is misconfigured."""
    return _REMEDIES.get(status, _CHECK_REDIRECT)


def rule(
    claim: Claim,
    answer: DeliveryResponse,
    *,
    policy: DeliveryPolicy,
    accepted_at: int,
    now: int,
    chance: Callable[[], float],
) -> Ruling:
    """Return what follows from the answer to an attempt.

    *accepted_at* is when the destination last accepted an event; *chance* returns a number from 0 to 1.
    """
    kind = kind_of(answer.status, policy.permanent_statuses)
    if kind is AnswerKind.DELIVERED:
        return Ruling(Verdict.DELIVERED)
    if kind is AnswerKind.DISABLED or answer.outcome is AttemptOutcome.STOPPED:  # it is not due, or not its fault
        return Ruling(Verdict.RETRY, now, counts=False)
    if kind is AnswerKind.MISCONFIGURED:
        return _rule_on_misconfigured(claim, answer, policy, now=now, chance=chance)
    is_permanent = kind is AnswerKind.PERMANENT
    reason = _reason_to_give_up(claim, policy, is_permanent=is_permanent, accepted_at=accepted_at, now=now)
    if reason:
        return Ruling(Verdict.DEAD_LETTER, reason=reason, is_permanent=is_permanent)
    delay = _delay_ms(claim.attempts, answer, policy, policy.max_backoff_ms, now=now, chance=chance)
    skips = policy.skip_after is not None and not claim.skipped and claim.attempts + 1 >= policy.skip_after
    return Ruling(Verdict.SKIP if skips else Verdict.RETRY, now + delay, is_permanent=is_permanent)


def _rule_on_misconfigured(
    claim: Claim, answer: DeliveryResponse, policy: DeliveryPolicy, *, now: int, chance: Callable[[], float]
) -> Ruling:
    """Retry without counting the attempt; but nothing waits longer than the maximum age."""
    if _is_too_old(claim, policy, now) and claim.queue_attempts >= policy.min_attempts:
        return Ruling(Verdict.DEAD_LETTER, reason=DeadLetterReason.EXPIRED, counts=False)
    max_backoff = min(policy.max_backoff_ms, MAX_MISCONFIGURED_BACKOFF_MS)
    delay = _delay_ms(claim.queue_attempts, answer, policy, max_backoff, now=now, chance=chance)
    return Ruling(Verdict.RETRY, now + delay, counts=False)


def _reason_to_give_up(
    claim: Claim, policy: DeliveryPolicy, *, is_permanent: bool, accepted_at: int, now: int
) -> DeadLetterReason | None:
    attempts, first_attempt_at = claim.attempts + 1, claim.first_attempt_at or now
    if (
        is_permanent
        and claim.rejections + 1 >= policy.permanent_attempts
        and now - first_attempt_at >= policy.permanent_after_ms
        and accepted_at > first_attempt_at
    ):
        return DeadLetterReason.REJECTED
    if policy.max_attempts is not None and attempts >= policy.max_attempts:
        return DeadLetterReason.ATTEMPTS
    if _is_too_old(claim, policy, now) and claim.attempts >= policy.min_attempts:
        return DeadLetterReason.EXPIRED
    return None


def _is_too_old(claim: Claim, policy: DeliveryPolicy, now: int) -> bool:
    """Return whether the event has waited for the maximum age, and its queue has failed for that long."""
    failing_since = max(claim.queue_failing_since, claim.planned_at)
    return bool(claim.queue_failing_since) and now - failing_since >= policy.max_age_ms


def _delay_ms(
    attempts: int,
    answer: DeliveryResponse,
    policy: DeliveryPolicy,
    max_backoff: int,
    *,
    now: int,
    chance: Callable[[], float],
) -> int:
    """Return the milliseconds until the next attempt: a random backoff, or what Retry-After demands if it is longer."""
    backoff = int(chance() * min(max_backoff, policy.first_backoff_ms * 2 ** min(attempts, 30)))
    return max(backoff, min(_retry_after_ms(answer.retry_after, now), policy.max_retry_after_ms))


def _retry_after_ms(header: str | None, now: int) -> int:
    """Parse Retry-After, seconds or a date, into milliseconds from *now*; 0 if it is missing or invalid."""
    if not header:
        return 0
    text = header.strip()
    if text.isascii() and text.isdigit():
        return int(text[:9]) * 1000
    try:
        return max(int(parsedate_to_datetime(text).timestamp() * 1000) - now, 0)
    except (ValueError, TypeError, OverflowError):
        return 0
