"""Which delivery queues come first at a busy destination: a simulation of hours with a simulated clock."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from service.outcomes import AttemptOutcome
from service.relay.breaker import shares
from service.relay.delivery_response import DeliveryResponse
from service.relay.dispatcher import claim_shares
from service.relay.policy import rule
from service.storage.deliveries import Attempt, Claim, Delivery, Settlement, Verdict
from service.storage.delivery_policy import DELIVERY_POLICY
from service.storage.sqlite.delivery_database import SqliteDeliveryDatabase
from service.storage.sqlite.delivery_queue import SqliteDeliveries

NOW = 1_795_000_000_000
SECONDS = int(os.environ.get("TEST_SIMULATED_SECONDS", "40"))
NEW_PER_SECOND = 500
CONCURRENCY = 8
ROUNDS_PER_SECOND = 100  # an attempt takes 10 ms


@pytest.fixture
def work(tmp_path: Path) -> Iterator[SqliteDeliveries]:
    store = SqliteDeliveryDatabase(tmp_path / "relay.db")
    work = SqliteDeliveries(store)
    work.join({"bot": 0}, now=NOW)
    yield work
    store.close()


def is_poisoned(claim: Claim) -> bool:
    return claim.position % NEW_PER_SECOND == 1


def test_no_failed_queue_starves(work: SqliteDeliveries) -> None:
    """With 500 new queues a second, one of which always fails, no failed queue waits longer than twice its backoff.

    `TEST_SIMULATED_SECONDS=3600` is the long form.
    """
    due: dict[str, tuple[int, int]] = {}  # due time and backoff of each failed queue
    delivered = 0
    for second in range(SECONDS):
        start = NOW + second * 1000
        first = second * NEW_PER_SECOND
        new = [Delivery(first + number, f"queue {first + number}", start) for number in range(1, NEW_PER_SECOND + 1)]
        assert work.plan("bot", first, first + NEW_PER_SECOND, new, now=start)
        for round_ in range(ROUNDS_PER_SECOND):
            now = start + round_ * 1000 // ROUNDS_PER_SECOND
            claims = claim_shares(work, "bot", CONCURRENCY, shares(CONCURRENCY, 0, 0), now=now, lease=1000)
            if not claims:
                break
            settlements = []
            for claim in claims:
                if claim.queue_attempts:
                    was_due, backoff = due.pop(claim.queue)
                    assert now - was_due <= backoff, claim
                status = 500 if is_poisoned(claim) else 200
                ruling = rule(
                    claim,
                    DeliveryResponse(status, AttemptOutcome.ERROR),
                    policy=DELIVERY_POLICY,
                    accepted_at=0,
                    now=now,
                    chance=lambda: 1.0,
                )
                if ruling.verdict is Verdict.RETRY:
                    due[claim.queue] = ruling.due, ruling.due - now
                delivered += status == 200
                settlements.append(Settlement(claim, Attempt(now, 0.01, status, "word"), ruling))
            assert not work.settle(settlements)
    assert len(due) == SECONDS
    assert delivered == SECONDS * (NEW_PER_SECOND - 1)
