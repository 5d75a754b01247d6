"""The relay's state in PostgreSQL: many relays at once, none of which waits for another, or loses what it does."""

import random
import threading
import time
from collections import Counter
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import cast

import psycopg
import pytest
from prometheus_client import CollectorRegistry

from service.config import InboxUrl, inbox_url
from service.errors import InboxUnavailable
from service.instruments import Instruments
from service.outcomes import StorageFailure
from service.relay.planner import Planner
from service.storage import engines, low_watermark
from service.storage.deliveries import Delivery, Settlement
from service.storage.delivery_policy import DELIVERY_POLICY, DeliveryPolicy
from service.storage.postgresql import schema
from service.storage.postgresql.connection import ServerAddress, connect
from service.storage.protocols import Log
from service.telemetry.metrics import RelayMetrics
from service.telemetry.tracing import Tracing
from tests.contract.test_deliveries import (
    BAD,
    DAY,
    DELIVERED,
    EXPIRED,
    LEASE,
    NOW,
    OK,
    State,
    later,
    next_due,
    opened,
    owe,
    settle,
    take,
)
from tests.support.destination import destination
from tests.support.engines import Servers
from tests.support.relaying import Relay, keep, message, write
from tests.support.relaying import opened as opened_inbox
from tests.support.server import until
from tests.support.servers.postgresql import Postgresql

pytestmark = pytest.mark.needs("postgresql")
LANES, EVENTS, RELAYS = 20, 1200, 4


@pytest.fixture
def url(servers: Servers) -> InboxUrl:
    return inbox_url(servers.postgresql().new_database())


def test_tables_from_before_the_first_release(url: InboxUrl) -> None:
    """Are refused with what to do, and no table is made beside them."""
    with closing(opened_inbox(Path(), url.text)):
        pass
    with connect(ServerAddress.of(url, timeout=5)) as db:
        db.execute("INSERT INTO whatsapp_webhook.version VALUES ('relay', 3, 1)")
        db.execute("CREATE TABLE whatsapp_webhook.relay (seen bigint)")
        db.execute(f"INSERT INTO whatsapp_webhook.relay VALUES ({NOW})")
        stored = engines.deliveries(url)
        for ask in (opened, stored.exists, lambda url: stored.low_watermark(url, NOW, DELIVERY_POLICY)):
            with pytest.raises(InboxUnavailable, match="drop relay, destination, owed") as refused:
                ask(url)
            assert refused.value.reason is StorageFailure.OLDER
        watermark = low_watermark.of(url)
        assert watermark(NOW) == 0, "an old relay still has to deliver"
        assert watermark(NOW + DELIVERY_POLICY.max_heartbeat_age_ms + 1) is None, "it will not come back"
        assert not schema.exists(db, "delivery")


def test_one_that_holds_its_claims_open_keeps_nobody_waiting(url: InboxUrl) -> None:
    """Its transaction is not over yet: others get other queues, at once."""
    one, other = opened(url), opened(url)
    one.join({"bot": 0}, now=NOW)
    owe(one, *(f"queue {number}" for number in range(10)))
    with one.together():
        first = {claim.queue for claim in take(one, most=4)}
        started = time.monotonic()
        second = {claim.queue for claim in take(other, most=10)}
        assert time.monotonic() - started < 1
    assert len(first) == 4
    assert len(second) == 6
    assert not first & second
    one.close()
    other.close()


def test_one_that_starts_while_others_read(url: InboxUrl) -> None:
    """What they read and planned since it looked at the log's end stays theirs: nobody is set back behind it."""
    starting, other = opened(url), opened(url)
    starting.join({"bot": 0}, now=NOW)

    class Growing:
        def identity(self) -> int:
            return 7

        def last(self) -> int:
            owe(other, "a", "b", "c")
            return 0

    metrics = RelayMetrics(CollectorRegistry())
    planner = Planner(
        starting,
        lambda: log,
        instruments=Instruments(metrics=metrics, tracing=Tracing(), now_ms=lambda: NOW),
        policy=DELIVERY_POLICY,
        retention_ms=60_000,
    )
    log = cast("Log", Growing())
    planner.adopt(log)
    assert other.positions() == {"bot": 3}
    assert [claim.position for claim in take(other, most=9)] == [1, 2, 3]
    starting.close()
    other.close()


def in_threads(*jobs: Callable[[], None]) -> None:
    """Run them at once; raises what one of them raised."""
    raised: list[BaseException] = []

    def guarded(job: Callable[[], None]) -> None:
        try:
            job()
        except BaseException as ex:  # noqa: BLE001  it is raised again
            raised.append(ex)

    threads = [threading.Thread(target=guarded, args=(job,)) for job in jobs]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if raised:
        raise raised[0]


def test_many_relays_at_once(url: InboxUrl) -> None:
    """Planners, workers and a tidier, all at the same queues: each event is tried in its order, and is over once."""
    first = opened(url)
    first.join({"bot": 0}, now=NOW)
    queues = [f"queue {random.Random(number).randrange(LANES)}" for number in range(EVENTS)]
    tried: list[tuple[str, int]] = []
    over: Counter[int] = Counter()
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
        while over.total() < EVENTS and time.monotonic() < deadline:
            claims = take(state, now=NOW + 1000, most=chance.randrange(1, 6))
            settlements = []
            for claim in claims:
                with lock:
                    tried.append((claim.queue, claim.position))
                fate = chance.choice((DELIVERED, DELIVERED, EXPIRED, later(NOW)))
                settlements.append(Settlement(claim, OK if fate is DELIVERED else BAD, fate))
            with state.together():
                late = state.settle(settlements)
            assert not late
            with lock:
                over.update(each.claim.position for each in settlements if each.ruling != later(NOW))
            time.sleep(0.001 if claims else 0.01)
        state.close()

    def tidy() -> None:
        state = opened(url)
        while over.total() < EVENTS and time.monotonic() < deadline:
            state.expire(0, now=NOW, policy=DeliveryPolicy(max_age_ms=DAY), dead_letter_age_ms=DAY)
            state.prune_attempts(0)
            time.sleep(0.01)
        state.close()

    in_threads(plan, plan, *[deliver] * RELAYS, tidy)
    assert over == Counter(range(1, EVENTS + 1)), "not all of it, or some of it twice"
    for queue in set(queues):
        positions = [position for name, position in tried if name == queue]
        assert positions == sorted(positions)
    (status,) = first.statuses()
    assert status.backlog == 0
    assert take(first, now=NOW * 2, most=9) == []
    assert next_due(first) is None, "a queue is left in which nothing is owed"
    first.close()


def test_it_goes_on_after_its_server_was_away() -> None:
    """Or its connection was: a store connects again by itself, and nothing of a transaction that broke is there."""
    with Postgresql() as server:
        url = inbox_url(server.new_database())
        state: State = opened(url)
        state.join({"bot": 0}, now=NOW)
        owe(state, "a", "b")
        server.process.kill()
        with pytest.raises(InboxUnavailable):
            take(state)
        server.start()
        (claim,) = take(state)
        server.execute("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname LIKE 'test%'")
        with pytest.raises(InboxUnavailable):
            settle(state, claim)
        assert settle(state, claim)
        assert [each.queue for each in take(state, now=NOW + LEASE * 2, most=9)] == ["b"]
        state.close()


def test_a_relay_whose_server_is_killed(tmp_path: Path) -> None:
    """It is not ready, says why, and delivers the rest once the server is there again."""
    with Postgresql() as server, destination() as app:
        url = server.new_database()
        inbox = opened_inbox(tmp_path, url)
        first = keep(inbox, *(message(person, person) for person in range(20)))
        write(tmp_path, {"url": f"http://127.0.0.1:{app.port}/"})
        with Relay(tmp_path, WEBHOOK_INBOX=url) as relay:
            until(lambda: len(app.requests) == 20, "not all came")
            inbox.close()
            server.process.kill()
            until(lambda: relay.admin("/readyz").status == 503, "it is still ready")
            assert b'"inbox": {\n      "ok": false' in relay.admin("/readyz").body
            server.start()
            relay.wait_until_ready()
            inbox = opened_inbox(tmp_path, url)
            more = keep(inbox, *(message(person, 100 + person) for person in range(20)))
            until(lambda: len(set(app.bodies())) == 40, lambda: f"{len(set(app.bodies()))} came")
            assert set(app.bodies()) == {event.data for event in (*first, *more)}
            inbox.close()


def test_claims_stay_flat(url: InboxUrl) -> None:
    """A claim reads as few pages of a hundred thousand owed as of a hundred."""
    pages = []
    for number in (100, 100_000):
        state = opened(url)
        name = f"bot {number}"
        state.join({name: 0}, now=NOW)
        for start in range(0, number, 10_000):
            owe(
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
            found = [plan[0][0]["Plan"] for plan in plans if plan]
            pages.append(sum(plan["Shared Hit Blocks"] + plan["Shared Read Blocks"] for plan in found))
        state.close()
    print(f"pages: {pages}")
    assert pages[1] <= pages[0] + 6


def test_a_log_that_is_adopted_beside_a_planner(url: InboxUrl) -> None:
    """Whoever opens it late takes nothing back of what others planned meanwhile; of another log nothing is left."""
    state = opened(url)
    state.join({"bot": 0}, now=NOW)
    assert state.adopt(7, 0) == 0
    owe(state, "a", "b", "c")
    assert state.adopt(7, 1) == 0
    assert state.positions() == {"bot": 3}
    owe(state, "d", since=3)
    assert state.adopt(8, 9) == 4
    assert state.positions() == {"bot": 0}
    state.close()


def test_destinations_of_a_database_that_was_made_anew(url: InboxUrl) -> None:
    """Are looked up again: their numbers are others there."""
    state = opened(url)
    state.join({"alpha": 0, "zeta": 0}, now=NOW)
    owe(state, "a", name="zeta")
    others = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = current_database()"
    with psycopg.connect(url.text, autocommit=True) as db:
        db.execute(f"{others} AND pid <> pg_backend_pid()")
        db.execute("DROP SCHEMA whatsapp_webhook CASCADE")
    with pytest.raises(InboxUnavailable):
        state.positions()
    state.join({"zeta": 0}, now=NOW)
    state.join({"alpha": 0, "zeta": 0}, now=NOW)
    owe(state, "a", name="zeta")
    assert {each.name: each.backlog for each in state.statuses()} == {"alpha": 0, "zeta": 1}
    state.close()


def test_a_relay_follows_its_inbox(tmp_path: Path, servers: Servers) -> None:
    """To another database, when the file that holds the URL says so: log and state together."""
    urls = [servers.postgresql().new_database() for _ in range(2)]
    file = tmp_path / "url"
    file.write_text(urls[0])
    with destination() as app:
        write(tmp_path, {"url": f"http://127.0.0.1:{app.port}/"})
        inboxes = [opened_inbox(tmp_path, url) for url in urls]
        keep(inboxes[0], message(1, 1))
        with Relay(tmp_path, WEBHOOK_INBOX="", WEBHOOK_INBOX_FILE=str(file)):
            until(lambda: len(app.requests) == 1, "nothing came")
            keep(inboxes[1], message(2, 2))
            file.write_text(urls[1])
            until(lambda: len(app.requests) == 2, "nothing came of the other")
        for inbox in inboxes:
            inbox.close()
