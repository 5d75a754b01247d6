"""What an answer means, and what follows from it: pure, so every edge case is one line."""

import dataclasses

import pytest

from service.outcomes import AttemptOutcome, DeadLetterReason
from service.relay.delivery_response import DeliveryResponse
from service.relay.policy import AnswerKind, kind_of, outcome_of, remedy_of, rule
from service.storage.deliveries import Claim, Ruling, Verdict
from service.storage.delivery_policy import DELIVERY_POLICY, DeliveryPolicy

NOW = 1_795_000_000_000
PERMANENT_AFTER = DELIVERY_POLICY.permanent_after_ms


def claim(
    queue_attempts: int = 0,
    queue_failing_since: int = 0,
    *,
    attempts: int | None = None,
    rejections: int = 0,
    first_attempt_at: int = 0,
    planned_at: int = 0,
    skipped: bool = False,
) -> Claim:
    """Return a claim; without *attempts*, all attempts of its queue were of this delivery."""
    return Claim(
        "bot",
        "queue",
        1,
        planned_at,
        replay=False,
        token=1,
        queue_attempts=queue_attempts,
        queue_failing_since=queue_failing_since,
        attempts=queue_attempts if attempts is None else attempts,
        rejections=rejections,
        first_attempt_at=first_attempt_at,
        skipped=skipped,
    )


def ruled(
    status: int,
    of: Claim,
    *,
    policy: DeliveryPolicy = DELIVERY_POLICY,
    accepted_at: int = 0,
    retry_after: str | None = None,
    chance: float = 1.0,
) -> Ruling:
    answer = DeliveryResponse(status, AttemptOutcome.ERROR, retry_after)
    return rule(of, answer, policy=policy, accepted_at=accepted_at, now=NOW, chance=lambda: chance)


def ruling(status: int, *, attempts: int = 0, retry_after: str | None = None, chance: float = 1.0) -> Ruling:
    return ruled(status, claim(attempts), retry_after=retry_after, chance=chance)


KINDS = {
    AnswerKind.DELIVERED: (200, 201, 204, 299),
    AnswerKind.MISCONFIGURED: (300, 302, 307, 399, 401, 403, 404, 405, 414, 415, 501),
    AnswerKind.PERMANENT: (400, 413, 422),
    AnswerKind.DISABLED: (410,),
    AnswerKind.RETRY: (101, 199, 402, 408, 409, 423, 499),
    AnswerKind.FAILED: (0, 429, 500, 502, 503, 504, 599, 600, 999),
}


@pytest.mark.parametrize(("kind", "status"), [(kind, status) for kind, all_ in KINDS.items() for status in all_])
def test_the_status_table(kind: AnswerKind, status: int) -> None:
    """The table of docs/receive-events.md."""
    assert kind_of(status, DELIVERY_POLICY.permanent_statuses) is kind


def test_a_destination_is_up_if_it_answered_about_the_message() -> None:
    """Not if it may be down, and not if it is misconfigured."""
    down = {kind for kind in AnswerKind if not kind.shows_that_it_is_up}
    assert down == {AnswerKind.FAILED, AnswerKind.MISCONFIGURED}


@pytest.mark.parametrize(
    ("status", "outcome"),
    [
        (200, "delivered"),
        (299, "delivered"),
        (300, "redirect"),
        (399, "redirect"),
        (101, "1xx"),
        (199, "1xx"),
        (400, "4xx"),
        (500, "5xx"),
        (599, "5xx"),
        (600, "error"),
        (999, "error"),
    ],
)
def test_the_outcome_is_the_class_of_the_status(status: int, outcome: str) -> None:
    """Or `error`, if HTTP does not define the class."""
    assert outcome_of(status) is AttemptOutcome(outcome)


def test_permanent_statuses_of_a_destination() -> None:
    """They replace the default, and come before the statuses of a misconfigured destination."""
    assert kind_of(404, {404}) is AnswerKind.PERMANENT
    assert kind_of(400, {404}) is AnswerKind.RETRY


@pytest.mark.parametrize("status", KINDS[AnswerKind.MISCONFIGURED])
def test_each_status_of_a_misconfigured_destination_has_a_remedy(status: int) -> None:
    """It says what to look at."""
    word = {401: "secretFile", 403: "secretFile", 414: "shorten", 415: "Content-Type"}.get(
        status, "redirect" if status < 400 else "POST requests"
    )
    assert word in remedy_of(status)
    assert remedy_of(status)[0].islower()


@pytest.mark.parametrize("status", KINDS[AnswerKind.DELIVERED])
def test_success(status: int) -> None:
    """Any 2xx is delivered."""
    assert ruling(status) == Ruling(Verdict.DELIVERED)


@pytest.mark.parametrize("status", [0, 199, 409, 429, 500, 503])
def test_everything_else_is_retried(status: int) -> None:
    """After a random backoff, whose upper limit doubles with each attempt."""
    assert ruling(status, chance=1.0) == Ruling(Verdict.RETRY, NOW + DELIVERY_POLICY.first_backoff_ms)
    assert ruling(status, chance=0.0) == Ruling(Verdict.RETRY, NOW)
    assert ruling(status, attempts=3).due == NOW + DELIVERY_POLICY.first_backoff_ms * 8
    assert ruling(status, attempts=10_000).due == NOW + DELIVERY_POLICY.max_backoff_ms


def test_gone_has_no_backoff() -> None:
    """The destination is disabled, and the delivery stays pending."""
    assert ruling(410) == Ruling(Verdict.RETRY, NOW, counts=False)


def test_an_attempt_that_the_relay_stopped_is_due_at_once() -> None:
    """It is not the destination's fault, so it does not count."""
    answer = DeliveryResponse(0, AttemptOutcome.STOPPED)
    assert rule(claim(3), answer, policy=DELIVERY_POLICY, accepted_at=0, now=NOW, chance=lambda: 1.0) == Ruling(
        Verdict.RETRY, NOW, counts=False
    )


def test_an_event_expires() -> None:
    """Three days after the queue's first failure, if there were enough attempts; a success then is still a success."""
    expired, enough = NOW - DELIVERY_POLICY.max_age_ms, DELIVERY_POLICY.min_attempts
    assert ruled(500, claim(enough, expired + 1)).verdict is Verdict.RETRY
    assert ruled(500, claim(enough, expired)) == Ruling(Verdict.DEAD_LETTER, reason=DeadLetterReason.EXPIRED)
    assert ruled(500, claim(enough - 1, expired)).verdict is Verdict.RETRY, "the clock may have jumped"
    assert ruled(200, claim(enough, expired)).verdict is Verdict.DELIVERED


def test_an_event_that_waited_behind_an_expired_one_has_attempts_of_its_own() -> None:
    """It does not inherit the count of its predecessor; one that was planned later has its own three days, too."""
    expired, enough = NOW - 2 * DELIVERY_POLICY.max_age_ms, DELIVERY_POLICY.min_attempts
    assert ruled(500, claim(99, expired, attempts=0)).verdict is Verdict.RETRY
    assert ruled(500, claim(99, expired, attempts=enough - 1)).verdict is Verdict.RETRY
    assert ruled(500, claim(99, expired, attempts=enough)).verdict is Verdict.DEAD_LETTER
    for planned_at, verdict in (
        (NOW - DELIVERY_POLICY.max_age_ms, Verdict.DEAD_LETTER),
        (NOW - DELIVERY_POLICY.max_age_ms + 1, Verdict.RETRY),
    ):
        assert ruled(500, claim(99, expired, planned_at=planned_at)).verdict is verdict


def test_max_attempts() -> None:
    """They win over the minimum of ten, and count per delivery."""
    policy = dataclasses.replace(DELIVERY_POLICY, max_attempts=2)
    assert ruled(500, claim(99, attempts=0), policy=policy).verdict is Verdict.RETRY
    assert ruled(500, claim(1), policy=policy) == Ruling(Verdict.DEAD_LETTER, reason=DeadLetterReason.ATTEMPTS)
    assert ruled(200, claim(1), policy=policy).verdict is Verdict.DELIVERED
    assert ruled(401, claim(99), policy=policy).verdict is Verdict.RETRY, "a misconfigured destination never counts"


def test_the_backoff_of_a_destination() -> None:
    """It replaces the default; its random delay grows with the attempts of the delivery."""
    policy = dataclasses.replace(DELIVERY_POLICY, first_backoff_ms=100, max_backoff_ms=500)
    delays = [ruled(500, claim(99, attempts=attempts), policy=policy).due - NOW for attempts in range(5)]
    assert delays == [100, 200, 400, 500, 500]


def rejected(
    rejections: int = 2, first_attempt_at: int = NOW - PERMANENT_AFTER, accepted_at: int = NOW, status: int = 422
) -> Ruling:
    """Return the ruling on an answer with a permanent status."""
    delivery = claim(2, rejections=rejections, first_attempt_at=first_attempt_at)
    return ruled(status, delivery, accepted_at=accepted_at)


class TestPermanentFailure:
    """A message that the destination will never accept, while it accepts others."""

    def test_three_answers_over_ten_minutes(self) -> None:
        """Then it is a dead letter."""
        assert rejected() == Ruling(Verdict.DEAD_LETTER, reason=DeadLetterReason.REJECTED, is_permanent=True)

    @pytest.mark.parametrize(
        "too_early",
        [
            {"rejections": 1},
            {"first_attempt_at": NOW - PERMANENT_AFTER + 1},
            {"accepted_at": 0},
            {"accepted_at": NOW - PERMANENT_AFTER},
        ],
    )
    def test_a_deployment_in_progress_kills_nothing(self, too_early: dict[str, int]) -> None:
        """Too few answers, too early, or no other event was accepted since the first attempt: it is retried."""
        ruling = rejected(**too_early)
        assert (ruling.verdict, ruling.is_permanent, ruling.counts) == (Verdict.RETRY, True, True)

    def test_an_answer_in_the_first_attempt_is_too_early(self) -> None:
        """Even if one answer is enough: it has just begun."""
        policy = dataclasses.replace(DELIVERY_POLICY, permanent_attempts=1)
        assert ruled(422, claim(), policy=policy, accepted_at=NOW).verdict is Verdict.RETRY

    def test_another_status_is_no_rejection(self) -> None:
        """It is retried like any other."""
        assert rejected(status=500) == Ruling(Verdict.RETRY, NOW + 4 * DELIVERY_POLICY.first_backoff_ms)

    def test_it_expires_like_any_other(self) -> None:
        """The destination may accept nothing at all for three days."""
        old = claim(10, NOW - DELIVERY_POLICY.max_age_ms, first_attempt_at=NOW - 1)
        assert ruled(422, old).reason is DeadLetterReason.EXPIRED


class TestMisconfigured:
    """A misconfigured destination is never counted against a message."""

    @pytest.mark.parametrize("status", KINDS[AnswerKind.MISCONFIGURED])
    def test_it_is_retried_within_a_minute(self, status: int) -> None:
        """However often it was attempted."""
        assert ruled(status, claim(99, attempts=0)) == Ruling(Verdict.RETRY, NOW + 60_000, counts=False)

    def test_retry_after_is_obeyed(self) -> None:
        """Also as a date."""
        ruling = ruled(403, claim(), retry_after="Wed, 18 Nov 2026 11:07:20 GMT")
        assert ruling == Ruling(Verdict.RETRY, 1_795_000_040_000, counts=False)

    def test_nothing_waits_longer_than_the_maximum_age(self) -> None:
        """Otherwise one wrong path would stop the purge of the inbox forever."""
        expired = NOW - DELIVERY_POLICY.max_age_ms
        assert ruled(404, claim(10, expired, attempts=0)) == Ruling(
            Verdict.DEAD_LETTER, reason=DeadLetterReason.EXPIRED, counts=False
        )
        assert ruled(404, claim(9, expired, attempts=0)).verdict is Verdict.RETRY
        assert ruled(404, claim(10, expired + 1, attempts=0)).verdict is Verdict.RETRY


class TestSkip:
    """With `onFailure: skip`, a delivery that fails stops blocking its queue."""

    policy = dataclasses.replace(DELIVERY_POLICY, skip_after=3)

    def test_after_so_many_attempts(self) -> None:
        """Once: then it waits in a queue of its own."""
        due = NOW + 4 * DELIVERY_POLICY.first_backoff_ms
        assert ruled(500, claim(1), policy=self.policy).verdict is Verdict.RETRY
        assert ruled(500, claim(2), policy=self.policy) == Ruling(Verdict.SKIP, due)
        assert ruled(500, claim(2, skipped=True), policy=self.policy) == Ruling(Verdict.RETRY, due)

    def test_a_misconfigured_destination_skips_nothing(self) -> None:
        """Its order can be kept: it accepts nothing."""
        assert ruled(401, claim(99), policy=self.policy).verdict is Verdict.RETRY


@pytest.mark.parametrize(
    ("header", "delay"),
    [
        ("120", 120_000),
        (" 120 ", 120_000),
        ("0", DELIVERY_POLICY.first_backoff_ms),
        ("999999999999", DELIVERY_POLICY.max_retry_after_ms),
        ("Wed, 18 Nov 2026 11:07:20 GMT", 1_795_000_040_000 - NOW),
        ("Wed, 18 Nov 2020 11:06:40 GMT", DELIVERY_POLICY.first_backoff_ms),
        ("soon", DELIVERY_POLICY.first_backoff_ms),
        ("-5", DELIVERY_POLICY.first_backoff_ms),
        ("", DELIVERY_POLICY.first_backoff_ms),
        ("Wed, 99 Nov 9999 99:99:99 GMT", DELIVERY_POLICY.first_backoff_ms),
    ],
)
def test_retry_after(header: str, delay: int) -> None:
    """Seconds or a date; never less than the backoff, and never more than a day."""
    assert ruling(503, retry_after=header).due == NOW + delay


def test_the_documented_limits() -> None:
    """The limits of docs/receive-events.md, in milliseconds."""
    assert (
        DELIVERY_POLICY.first_backoff_ms,
        DELIVERY_POLICY.max_backoff_ms,
        DELIVERY_POLICY.max_retry_after_ms,
        DELIVERY_POLICY.max_age_ms,
    ) == (2_000, 3_600_000, 86_400_000, 259_200_000)
    assert DELIVERY_POLICY.min_attempts == 10
    assert (DELIVERY_POLICY.permanent_attempts, DELIVERY_POLICY.permanent_after_ms) == (3, 600_000)


def test_stored_times_are_integers() -> None:
    """SQLite rejects other types."""
    assert isinstance(ruling(500, chance=0.3).due, int)
    assert isinstance(ruling(500, chance=0.0, retry_after="Wed, 18 Nov 2026 11:07:20 GMT").due, int)


@pytest.mark.parametrize("header", ["", "soon", "Wed, 18 Nov 2020 11:06:40 GMT", "Wed, 99 Nov 9999 99:99:99 GMT", "²"])
def test_an_invalid_retry_after_adds_no_delay(header: str) -> None:
    """Nor does a date in the past."""
    assert ruling(503, retry_after=header, chance=0.0).due == NOW
