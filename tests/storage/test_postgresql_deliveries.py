"""The relay's state in PostgreSQL beyond the contract: concurrent relays, lost connections, costs of a claim."""

import random
import threading
import time
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import closing
from pathlib import Path
from typing import cast

import psycopg
import pytest

from service.config import InboxUrl, inbox_url
from service.errors import InboxUnavailable
from service.outcomes import StorageFailure
from service.relay.planner import Planner
from service.storage import engines, low_watermark
from service.storage.deliveries import Delivery, ExpiryLimits, Settlement
from service.storage.delivery_policy import DELIVERY_POLICY, DeliveryPolicy
from service.storage.postgresql import schema
from service.storage.postgresql.connection import ServerAddress, connect
from service.storage.protocols import Log
from service.storage.timelines import Timeline
from tests.contract.test_deliveries import (
    BAD,
    DAY,
    DELIVERED,
    EXPIRED,
    LEASE,
    NOW,
    OK,
    State,
    claim_some,
    next_due,
    opened,
    plan_deliveries,
    retry_at,
    settle,
)
from tests.support.destination import destination
from tests.support.engines import Servers
from tests.support.instruments import relay_instruments
from tests.support.relaying import Relay, keep, message, write
from tests.support.relaying import opened as opened_inbox
from tests.support.server import until
from tests.support.servers.postgresql import Postgresql

pytestmark = pytest.mark.needs("postgresql")
QUEUES, EVENTS, RELAYS = 20, 1200, 4


@pytest.fixture
def url(servers: Servers) -> InboxUrl:
    return inbox_url(servers.postgresql().new_database())


def test_pre_release_tables_are_rejected(url: InboxUrl) -> None:
    """The error has a remedy, and no table is created beside them."""
    with closing(opened_inbox(Path(), url.text)):
        pass
    with connect(ServerAddress.of(url, timeout=5)) as db:
        db.execute("INSERT INTO whatsapp_webhook.version VALUES ('relay', 3, 1)")
        db.execute("CREATE TABLE whatsapp_webhook.relay (seen bigint)")
        db.execute(f"INSERT INTO whatsapp_webhook.relay VALUES ({NOW})")
        stored = engines.deliveries(url)
        for ask in (opened, stored.exists, lambda url: stored.low_watermark(url, NOW, DELIVERY_POLICY)):
            with pytest.raises(InboxUnavailable, match="drop the tables relay, destination") as raised:
                ask(url)
            assert raised.value.reason is StorageFailure.OLDER
        watermark = low_watermark.of(url)
        assert watermark(NOW) == 0, "an old relay may still deliver"
        assert watermark(NOW + DELIVERY_POLICY.max_heartbeat_age_ms + 1) is None, "the old relay counts as removed"
        assert not schema.exists(db, "delivery")


def test_an_open_claim_does_not_block_other_relays(url: InboxUrl) -> None:
    """While one relay's transaction is open, another claims other queues without a wait."""
    one, other = opened(url), opened(url)
    one.join({"bot": 0}, now=NOW)
    plan_deliveries(one, *(f"queue {number}" for number in range(10)))
    with one.together():
        first = {claim.queue for claim in claim_some(one, most=4)}
        started = time.monotonic()
        second = {claim.queue for claim in claim_some(other, most=10)}
        assert time.monotonic() - started < 1
    assert len(first) == 4
    assert len(second) == 6
    assert not first & second
    one.close()
    other.close()


def test_a_relay_that_starts_while_others_plan(url: InboxUrl) -> None:
    """It does not reset positions that others have planned since it read the log's last position."""
    starting, other = opened(url), opened(url)
    starting.join({"bot": 0}, now=NOW)

    class Growing:
        def timelines(self) -> Sequence[Timeline]:
            plan_deliveries(other, "a", "b", "c")
            return [Timeline(7, 0)]

    planner = Planner(
        starting,
        lambda: log,
        instruments=relay_instruments(clock=lambda: NOW),
        policy=DELIVERY_POLICY,
        retention_ms=60_000,
    )
    log = cast("Log", Growing())
    planner.adopt(log)
    assert other.positions() == {"bot": 3}
    assert [claim.position for claim in claim_some(other, most=9)] == [1, 2, 3]
    starting.close()
    other.close()


def in_threads(*jobs: Callable[[], None]) -> None:
    """Run jobs concurrently; raise the first exception of one of them."""
    raised: list[BaseException] = []

    def guarded(job: Callable[[], None]) -> None:
        try:
            job()
        except BaseException as ex:  # noqa: BLE001  raised again below
            raised.append(ex)

    threads = [threading.Thread(target=guarded, args=(job,)) for job in jobs]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if raised:
        raise raised[0]


def test_many_relays_at_once(url: InboxUrl) -> None:
    """With planners, workers and a cleanup on the same queues, each event is attempted in order and settled once."""
    first = opened(url)
    first.join({"bot": 0}, now=NOW)
    queues = [f"queue {random.Random(number).randrange(QUEUES)}" for number in range(EVENTS)]
    attempted: list[tuple[str, int]] = []
    settled: Counter[int] = Counter()
    lock = threading.Lock()
    deadline = time.monotonic() + 60

    def plan() -> None:
        state, chance = opened(url), random.Random(time.monotonic_ns())
        while (since := state.positions()["bot"]) < EVENTS and time.monotonic() < deadline:
            until_ = min(since + chance.randrange(1, 8), EVENTS)
            state.plan(
                "bot",
                since,
                until_,
                [Delivery(at, queues[at - 1], NOW) for at in range(since + 1, until_ + 1)],
                now=NOW,
            )
            time.sleep(chance.random() / 500)
        state.close()

    def deliver() -> None:
        state, chance = opened(url), random.Random(time.monotonic_ns())
        while settled.total() < EVENTS and time.monotonic() < deadline:
            claims = claim_some(state, now=NOW + 1000, most=chance.randrange(1, 6))
            settlements = []
            for claim in claims:
                with lock:
                    attempted.append((claim.queue, claim.position))
                ruling = chance.choice((DELIVERED, DELIVERED, EXPIRED, retry_at(NOW)))
                settlements.append(Settlement(claim, OK if ruling is DELIVERED else BAD, ruling))
            with state.together():
                expired = state.settle(settlements)
            assert not expired
            with lock:
                settled.update(each.claim.position for each in settlements if each.ruling != retry_at(NOW))
            time.sleep(0.001 if claims else 0.01)
        state.close()

    def clean_up() -> None:
        state = opened(url)
        while settled.total() < EVENTS and time.monotonic() < deadline:
            limits = ExpiryLimits(DeliveryPolicy(max_age_ms=DAY), DAY, 9 * DAY)
            state.expire(0, limits, now=NOW, max_ages_ms={"bot": DAY})
            state.prune_attempts(0)
            time.sleep(0.01)
        state.close()

    in_threads(plan, plan, *[deliver] * RELAYS, clean_up)
    assert settled == Counter(range(1, EVENTS + 1)), "some events were not settled, or twice"
    for queue in set(queues):
        positions = [position for name, position in attempted if name == queue]
        assert positions == sorted(positions)
    (status,) = first.statuses()
    assert status.backlog == 0
    assert claim_some(first, now=NOW * 2, most=9) == []
    assert next_due(first) is None, "an empty queue is left"
    first.close()


def test_a_lost_connection_is_replaced() -> None:
    """After a restart of the server or a closed connection, the store reconnects; the broken transaction is undone."""
    with Postgresql() as server:
        url = inbox_url(server.new_database())
        state: State = opened(url)
        state.join({"bot": 0}, now=NOW)
        plan_deliveries(state, "a", "b")
        server.process.kill()
        with pytest.raises(InboxUnavailable):
            claim_some(state)
        server.start()
        (claim,) = claim_some(state)
        server.execute("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname LIKE 'test%'")
        with pytest.raises(InboxUnavailable):
            settle(state, claim)
        assert settle(state, claim)
        assert [each.queue for each in claim_some(state, now=NOW + LEASE * 2, most=9)] == ["b"]
        state.close()


def test_a_relay_whose_server_is_killed(tmp_path: Path) -> None:
    """It is not ready, reports why, and delivers the remaining events once the server runs again."""
    with Postgresql() as server, destination() as app:
        url = server.new_database()
        inbox = opened_inbox(tmp_path, url)
        first = keep(inbox, *(message(person, person) for person in range(20)))
        write(tmp_path, {"url": f"http://127.0.0.1:{app.port}/"})
        with Relay(tmp_path, WEBHOOK_INBOX=url) as relay:
            until(lambda: len(app.requests) == 20, "not all events were delivered")
            inbox.close()
            server.process.kill()
            until(lambda: relay.admin("/readyz").status == 503, "it is still ready")
            assert b'"inbox": {\n      "ok": false' in relay.admin("/readyz").body
            server.start()
            relay.wait_until_ready()
            inbox = opened_inbox(tmp_path, url)
            more = keep(inbox, *(message(person, 100 + person) for person in range(20)))
            until(lambda: len(set(app.bodies())) == 40, lambda: f"{len(set(app.bodies()))} were delivered")
            assert set(app.bodies()) == {event.data for event in (*first, *more)}
            inbox.close()


def test_a_claim_costs_the_same_for_any_backlog(url: InboxUrl) -> None:
    """A claim reads as few pages with a hundred thousand pending deliveries as with a hundred."""
    pages = []
    for number in (100, 100_000):
        state = opened(url)
        name = f"bot {number}"
        state.join({name: 0}, now=NOW)
        for start in range(0, number, 10_000):
            plan_deliveries(
                state,
                *(f"queue {index}" for index in range(start, min(start + 10_000, number))),
                since=start,
                name=name,
            )
        with psycopg.connect(url.text, autocommit=True) as db:
            db.execute("VACUUM ANALYZE")
            key = db.execute("SELECT id FROM whatsapp_webhook.destination WHERE name = %s", (name,)).fetchone()
            assert key
            plans = [
                db.execute(
                    "EXPLAIN (ANALYZE, BUFFERS, FORMAT JSON) SELECT queue FROM whatsapp_webhook.delivery_queue "
                    f"WHERE destination = %s AND least(attempts, 1) = {kind} AND due <= %s ORDER BY due, queue LIMIT 1 "
                    "FOR UPDATE SKIP LOCKED",
                    (key[0], NOW * 2),
                ).fetchone()
                for kind in (0, 1)
            ]
            nodes = [plan[0][0]["Plan"] for plan in plans if plan]
            pages.append(sum(node["Shared Hit Blocks"] + node["Shared Read Blocks"] for node in nodes))
        state.close()
    print(f"pages: {pages}")
    assert pages[1] <= pages[0] + 6


def test_adopting_the_same_log_resets_no_positions(url: InboxUrl) -> None:
    """Others may have planned more since *last* was read. Adopting another log drops the whole state."""
    state = opened(url)
    state.join({"bot": 0}, now=NOW)
    assert state.adopt([Timeline(7, 0)]) == 0
    plan_deliveries(state, "a", "b", "c")
    assert state.adopt([Timeline(7, 0)]) == 0
    assert state.positions() == {"bot": 3}
    plan_deliveries(state, "d", since=3)
    assert state.adopt([Timeline(8, 0)]) == 4
    assert state.positions() == {"bot": 0}
    state.close()


def test_destination_ids_are_looked_up_again_after_a_reconnect(url: InboxUrl) -> None:
    """In a schema that was dropped and created again, destinations have other ids."""
    state = opened(url)
    state.join({"alpha": 0, "zeta": 0}, now=NOW)
    plan_deliveries(state, "a", name="zeta")
    others = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = current_database()"
    with psycopg.connect(url.text, autocommit=True) as db:
        db.execute(f"{others} AND pid <> pg_backend_pid()")
        db.execute("DROP SCHEMA whatsapp_webhook CASCADE")
    with pytest.raises(InboxUnavailable):
        state.positions()
    state.join({"zeta": 0}, now=NOW)
    state.join({"alpha": 0, "zeta": 0}, now=NOW)
    plan_deliveries(state, "a", name="zeta")
    assert {each.name: each.backlog for each in state.statuses()} == {"alpha": 0, "zeta": 1}
    state.close()


def test_a_relay_follows_a_change_of_the_url(tmp_path: Path, servers: Servers) -> None:
    """If the URL in the file changes, the relay uses the log and the state of the new database."""
    urls = [servers.postgresql().new_database() for _ in range(2)]
    file = tmp_path / "url"
    file.write_text(urls[0])
    with destination() as app:
        write(tmp_path, {"url": f"http://127.0.0.1:{app.port}/"})
        inboxes = [opened_inbox(tmp_path, url) for url in urls]
        keep(inboxes[0], message(1, 1))
        with Relay(tmp_path, WEBHOOK_INBOX="", WEBHOOK_INBOX_FILE=str(file)):
            until(lambda: len(app.requests) == 1, "nothing was delivered")
            keep(inboxes[1], message(2, 2))
            file.write_text(urls[1])
            until(lambda: len(app.requests) == 2, "nothing was delivered from the other database")
        for inbox in inboxes:
            inbox.close()
