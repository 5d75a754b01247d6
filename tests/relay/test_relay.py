"""The relay in one process: a real inbox, real destinations, and a clock that the test moves."""

import io
import json
import os
import random
import socket
import struct
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing
from pathlib import Path
from typing import Any

import apsw
import pytest

from service.instruments import Instruments
from service.meta import catalogue
from service.relay.destination_registry import DestinationRegistry
from service.relay.loop import Relay
from service.storage.deliveries import AttemptEvidence, DeadLetter, Delivery, DeliveryHealth, DestinationStatus
from service.storage.delivery_policy import DELIVERY_POLICY
from service.storage.sqlite import SqliteInbox, SqliteLog
from service.storage.sqlite.delivery_admin import SqliteDeliveryAdmin, low_watermark
from service.storage.sqlite.delivery_database import SqliteDeliveryDatabase
from service.storage.sqlite.delivery_queue import SqliteDeliveries
from service.telemetry import logs, metrics
from service.telemetry.tracing import Tracing
from tests.support.destination import OK, Destination, Request, destination, saying
from tests.support.relaying import keep, message, messages, opened, write
from tests.support.server import until

HOUR = 3600.0
WEEK = 7 * 86_400.0


REJECTED = OK.replace(b"200 OK", b"422 X")
FAILED = OK.replace(b"200 OK", b"500 X")
UNAUTHORIZED = OK.replace(b"200 OK", b"401 X")


class Setup:
    """An inbox, a relay, and the relay's clock: the real time plus what a test adds to it."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.inbox: SqliteInbox = opened(directory)
        self.store = SqliteDeliveryDatabase(directory / "relay.db")
        self.ahead = 0.0
        self.metrics, self.registry = metrics.for_relay()
        self.relay: Relay | None = None

    def now(self) -> float:
        return time.time() + self.ahead

    def start(self, *destinations: dict[str, Any], chance: Callable[[], float] = random.random) -> Relay:
        write(self.directory, *destinations)
        self.relay = Relay(
            DestinationRegistry(self.directory / "destinations.yaml"),
            SqliteDeliveries(self.store),
            lambda: SqliteLog(self.directory / "inbox.db"),
            instruments=Instruments(
                metrics=self.metrics, tracing=Tracing(), now_ms=lambda: int(self.now() * 1000), chance=chance
            ),
            retention_ms=int(WEEK * 1000),
            prepare=lambda: None,
        )
        self.relay.start()
        return self.relay

    def status(self, name: str = "app") -> DestinationStatus:
        return {each.name: each for each in SqliteDeliveryAdmin(self.store).statuses()}[name]

    def joined(self, name: str = "app") -> bool:
        return name in {each.name for each in SqliteDeliveryAdmin(self.store).statuses()}

    def dead_letters(self) -> list[DeadLetter]:
        return list(SqliteDeliveryAdmin(self.store).dead_letters(limit=100))

    def metric(self, name: str, labels: Mapping[str, str]) -> float:
        return self.registry.get_sample_value(f"whatsapp_webhook_relay_{name}", dict(labels)) or 0.0

    def attempts(self, name: str = "app") -> int:
        """Return how many attempts ended and were ruled on."""
        metrics = self.registry.collect()
        samples = [sample for metric in metrics for sample in metric.samples if sample.name.endswith("attempts_total")]
        return int(sum(sample.value for sample in samples if sample.labels["destination"] == name))

    def advance(self, seconds: float, app: Destination) -> None:
        """Move the clock and wait until the due attempts ended: one that runs while it moves loses its lease."""
        before = self.attempts()
        self.ahead += seconds
        until(lambda: before < self.attempts() == len(app.requests), "never attempted again")

    def close(self) -> None:
        if self.relay:
            self.relay.stop()
        self.store.close()
        self.inbox.close()


@pytest.fixture
def setup(tmp_path: Path) -> Iterator[Setup]:
    with closing(Setup(tmp_path)) as setup:
        yield setup


@pytest.fixture
def app() -> Iterator[Destination]:
    with destination() as app:
        yield app


def to(app: Destination, **more: Any) -> dict[str, Any]:
    return {"url": f"http://127.0.0.1:{app.port}/hook", **more}


def test_every_event_is_delivered_in_the_order_of_its_partition_key(setup: Setup, app: Destination) -> None:
    """Byte for byte as it was stored."""
    events = keep(setup.inbox, *messages(500, 7))
    setup.start(to(app, concurrency=16))
    until(lambda: len(app.requests) == 500, lambda: f"{len(app.requests)} of 500 received")
    assert sorted(app.bodies()) == sorted(event.data for event in events)
    for key in {event.partitionkey for event in events}:
        expected = [event.data for event in events if event.partitionkey == key]
        received = [request.body for request in app.requests if request.headers["ce-partitionkey"] == key]
        assert received == expected
    until(lambda: setup.status().backlog == 0, "something is still pending")
    assert setup.metric("attempts_total", {"destination": "app", "outcome": "delivered"}) == 500


def test_an_event_that_is_stored_later_is_delivered_within_a_second(setup: Setup, app: Destination) -> None:
    """The relay polls the end of the log."""
    setup.start(to(app))
    until(setup.joined, "the destinations file was not read")
    started = time.monotonic()
    keep(setup.inbox, message(1, 1))
    until(lambda: app.requests, "nothing was received")
    assert time.monotonic() - started < 1


def test_a_new_destination_starts_at_the_end_of_the_log(setup: Setup, app: Destination) -> None:
    """Unless it sets `from: beginning`."""
    keep(setup.inbox, message(1, 1))
    with destination() as other:
        setup.start(to(app, **{"from": "now"}), to(other, name="other"))
        until(lambda: other.requests, "nothing was received")
        (late,) = keep(setup.inbox, message(1, 2))
        until(lambda: app.requests, "nothing was received")
        assert app.bodies() == [late.data]


def test_the_file_changes_while_the_relay_runs(setup: Setup, app: Destination) -> None:
    """A destination gets another URL, and a second one is removed."""
    with destination() as other:
        setup.start(to(app), to(other, name="other"))
        until(lambda: setup.joined() and setup.joined("other"), "the destinations file was not read")
        write(setup.directory, to(other))  # `app` gets the URL that `other` had
        until(lambda: setup.status("other").gone_since, "the change was not seen")
        time.sleep(0.1)
        keep(setup.inbox, message(1, 1))
        until(lambda: other.requests, "nothing was received")
        time.sleep(0.2)
        assert (len(app.requests), len(other.requests)) == (0, 1)


def test_a_file_that_becomes_invalid_changes_nothing(setup: Setup, app: Destination) -> None:
    """The check of /readyz reports the problem."""
    relay = setup.start(to(app))
    until(setup.joined, "the destinations file was not read")
    (setup.directory / "destinations.yaml").write_text("destinations: [{nam: app}]")
    until(relay.destinations_problem, "the problem was not reported")
    assert "unknown key nam" in str(relay.destinations_problem())
    keep(setup.inbox, message(1, 1))
    until(lambda: app.requests, "nothing was received")


def test_a_destination_that_hangs_delays_no_other(setup: Setup, app: Destination) -> None:
    """Nor does a partition key that is always rejected delay other keys at the same destination."""
    keep(setup.inbox, *messages(100, 10))
    poisoned = keep(setup.inbox, message(3, 1000))[0].partitionkey

    def choosy(request: Request, client: Any) -> None:
        bad = request.headers["ce-partitionkey"] == poisoned
        client.sendall(OK.replace(b"200 OK", b"422 X") if bad else OK)

    with destination(saying(after=30)) as slow, destination(choosy) as poison:
        setup.start(to(app), to(slow, name="slow", timeout=20), to(poison, name="poison"), chance=lambda: 1.0)
        until(lambda: len(app.requests) == 101, lambda: f"{len(app.requests)} of 101", patience=5)
        until(lambda: setup.status("poison").backlog == 11, lambda: str(setup.status("poison")), patience=5)
        assert setup.status("slow").backlog == 101
        write(setup.directory, to(app))  # so that stopping the relay need not wait for the slow one
        slow.close()


def test_a_long_history_delays_no_live_message(setup: Setup, app: Destination) -> None:
    """5,000 old messages of a customer are pending, one after the other: a new one arrives when a stranger's does."""
    customer = "16505550001"
    line = {"from": customer, "type": "text", "timestamp": "1790000000"}
    thread = {"id": customer, "messages": [{**line, "id": f"wamid.old{number}"} for number in range(5000)]}
    metadata = {"display_phone_number": catalogue.BUSINESS, "phone_number_id": catalogue.PHONE_NUMBER_ID}
    change = {"field": "history", "value": {"metadata": metadata, "history": [{"threads": [thread]}]}}
    entry = {"id": catalogue.ACCOUNT, "changes": [change]}
    app.behave = saying(after=0.005)
    setup.start({"url": f"http://127.0.0.1:{app.port}/"})
    keep(setup.inbox, json.dumps({"object": "whatsapp_business_account", "entry": [entry]}).encode())
    until(lambda: setup.status().backlog > 4500, "not planned")
    live, strangers = keep(setup.inbox, message(1, 1), message(2, 2))
    assert live.subject == customer
    until(lambda: {live.data, strangers.data} <= set(app.bodies()), "not delivered")
    assert abs(app.bodies().index(live.data) - app.bodies().index(strangers.data)) < 20, "it waited for old messages"
    assert setup.status().backlog > 1000


def test_a_410_disables_the_destination_until_it_is_enabled(setup: Setup) -> None:
    """Its deliveries stay pending."""
    keep(setup.inbox, *messages(3, 1))
    with destination(saying(OK.replace(b"200", b"410"))) as gone:
        setup.start(to(gone))
        until(lambda: gone.requests, "nothing was received")
        until(lambda: setup.status().disabled, "never disabled")
        assert setup.status().disabled == "responded with status 410"
        time.sleep(0.3)
        assert (len(gone.requests), setup.status().backlog) == (1, 3)
        gone.behave = saying()
        SqliteDeliveryAdmin(setup.store).disable("app", None)
        until(lambda: len(gone.requests) == 4, "not delivered after it was enabled")
    assert [request.headers["ce-id"] for request in gone.requests[:2]] == [gone.requests[0].headers["ce-id"]] * 2


def test_a_redirect_is_not_followed(setup: Setup, app: Destination) -> None:
    """It is a failure like any other."""
    keep(setup.inbox, message(1, 1))
    there = f"HTTP/1.1 307 X\r\nLocation: http://127.0.0.1:{app.port}/\r\nContent-Length: 0\r\n\r\n"
    with destination(saying(there.encode())) as moved:
        setup.start(to(moved), chance=lambda: 1.0)
        until(lambda: moved.requests, "nothing was received")
        until(lambda: setup.metric("attempts_total", {"destination": "app", "outcome": "redirect"}), "not counted")
    assert app.requests == []


def test_retry_after_delays_its_own_queue_only(setup: Setup) -> None:
    """The queue waits for the requested time; another queue does not."""
    keep(setup.inbox, message(1, 1), message(2, 2))

    def later(request: Request, client: Any) -> None:
        busy = request.headers["ce-partitionkey"].endswith("1") and setup.ahead == 0
        client.sendall(b"HTTP/1.1 429 X\r\nRetry-After: 900\r\nContent-Length: 0\r\n\r\n" if busy else OK)

    with destination(later) as busy:
        setup.start(to(busy), chance=lambda: 0.0)
        until(lambda: len(busy.requests) == 2 and setup.status().backlog == 1, "not both were received")
        time.sleep(0.3)
        assert len(busy.requests) == 2
        setup.ahead = 901
        until(lambda: len(busy.requests) == 3, "never attempted again")
        until(lambda: setup.status().backlog == 0, "still pending")


def test_after_three_days_an_event_is_a_dead_letter(setup: Setup) -> None:
    """With its reason and attempts; the next event of its queue has three days of its own."""
    (first,) = keep(setup.inbox, message(1, 1))
    with destination(saying(OK.replace(b"200", b"500"))) as broken:
        setup.start(to(broken), chance=lambda: 1.0)
        while setup.attempts() <= DELIVERY_POLICY.min_attempts:
            setup.advance(HOUR, broken)  # the longest backoff
        setup.advance(DELIVERY_POLICY.max_age_ms / 2000, broken)
        (second,) = keep(setup.inbox, message(1, 2))
        until(lambda: setup.status().backlog == 2, "never planned")
        setup.advance(DELIVERY_POLICY.max_age_ms / 2000, broken)
        until(setup.dead_letters, "no dead letter")
        broken.behave = saying()
        assert [(dead.position, dead.reason) for dead in setup.dead_letters()] == [(1, "expired")]
        assert setup.dead_letters()[0].attempts > DELIVERY_POLICY.min_attempts
        setup.ahead += HOUR
        until(lambda: setup.status().backlog == 0, "never delivered")
    assert broken.requests[-1].body == second.data
    assert broken.requests[0].body == first.data
    assert setup.metric("dead_letters_total", {"destination": "app", "reason": "expired"}) == 1


def poisoned(how: str, customers: int) -> Callable[[Request, Any], None]:
    """Fail the events of the first so many customers, and accept all others."""

    def answer(request: Request, client: Any) -> None:
        if int(request.headers["ce-partitionkey"][-3:]) >= customers:
            client.sendall(OK)
        elif how == "timeout":
            time.sleep(0.5)
        elif how == "reset":
            client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            os.close(client.detach())
        else:
            client.sendall(OK.replace(b"200", how.encode()))

    return answer


@pytest.mark.alone
@pytest.mark.parametrize(("customers", "within"), [(30, 9.4), pytest.param(100, 38, marks=pytest.mark.long)])
@pytest.mark.parametrize(
    "how", ["500", "timeout", *(pytest.param(how, marks=pytest.mark.long) for how in ("502", "504", "reset"))]
)
def test_customers_whose_messages_fail_do_not_block_others(
    setup: Setup, how: str, customers: int, within: float
) -> None:
    """Of 48 messages of others, nine in ten are delivered within so many seconds, and all in the end."""
    keep(setup.inbox, *(message(number, number) for number in range(customers)))
    with destination(poisoned(how, customers)) as app:
        setup.start(to(app, timeout="300ms", concurrency=8))
        until(lambda: len(app.requests) >= 5, "nothing was received")
        stored_at: dict[bytes, float] = {}
        for number in range(48):
            (event,) = keep(setup.inbox, message(200 + number, 1000 + number))
            stored_at[event.data] = time.monotonic()
            time.sleep(0.1)

        def delays() -> list[float]:
            received_at = {request.body: request.at for request in reversed(app.requests)}
            return sorted(received_at[body] - at for body, at in stored_at.items() if body in received_at)

        until(lambda: len(delays()) == 48, lambda: f"{len(delays())} of 48", patience=4 * within)
        print(f"{how}, {customers} failing customers: p50 {delays()[24]:.1f} s, p90 {delays()[43]:.1f} s")
        assert delays()[43] < within


def test_an_application_that_fails_for_every_event(setup: Setup) -> None:
    """It gets at most five attempts a second, however many customers write."""
    keep(setup.inbox, *messages(400, 200))
    with destination(saying(OK.replace(b"200", b"500"))) as app:
        setup.start(to(app, concurrency=8))
        until(lambda: app.requests, "nothing was received")
        time.sleep(0.5)
        before = len(app.requests)
        time.sleep(4)
        assert 1 <= len(app.requests) - before <= 4 * 5


def test_down_for_an_hour(setup: Setup, app: Destination) -> None:
    """Others are unaffected; when it is back everything is delivered in order, within its concurrency."""
    events = keep(setup.inbox, *messages(400, 20))
    concurrent, most, lock = 0, [0], threading.Lock()

    def count(_request: Request, client: Any) -> None:
        nonlocal concurrent
        with lock:
            concurrent += 1
            most[0] = max(most[0], concurrent)
        time.sleep(0.001)
        with lock:
            concurrent -= 1
        client.sendall(OK)

    down = Destination(saying())
    port = down.port
    down.close()
    setup.start(to(app), {"name": "down", "url": f"http://127.0.0.1:{port}/", "concurrency": 8})
    until(lambda: len(app.requests) == 400, lambda: f"{len(app.requests)} of 400", patience=10)
    breaker = {"destination": "down", "outcome": "connection"}
    for minute in range(60):
        setup.ahead = minute * 60
        time.sleep(0.01)
    attempts = setup.metric("attempts_total", breaker)
    assert 5 <= attempts < 150, "a destination that is down is probed now and then"
    back = Destination(count, port=port)
    setup.ahead = 2 * HOUR + 61
    until(lambda: setup.status("down").backlog == 0, lambda: str(setup.status("down")))
    back.close()
    assert most[0] <= 8
    for key in {event.partitionkey for event in events}:
        expected = [event.data for event in events if event.partitionkey == key]
        assert [each.body for each in back.requests if each.headers["ce-partitionkey"] == key] == expected


def test_an_event_that_the_log_no_longer_holds_is_a_dead_letter(setup: Setup, app: Destination) -> None:
    """Its reason is `retention`; the next event is delivered."""
    keep(setup.inbox, message(1, 1), message(1, 2))
    setup.inbox._db.execute("UPDATE event SET data = NULL WHERE position = 1")
    work = SqliteDeliveries(setup.store)
    work.join({"app": 0}, now=0)
    assert work.plan("app", 0, 2, [Delivery(1, "queue", 0), Delivery(2, "queue", 0)], now=0)
    setup.start(to(app))
    until(lambda: app.requests and setup.status().backlog == 0, "nothing was received")
    assert [(dead.position, dead.reason) for dead in setup.dead_letters()] == [(1, "retention")]


def test_an_inbox_that_does_not_exist_yet(tmp_path: Path, app: Destination) -> None:
    """The relay reports it, and waits for it."""
    with closing(Setup(tmp_path)) as setup:
        setup.inbox.close()
        for file in tmp_path.glob("inbox.db*"):
            file.unlink()
        relay = setup.start(to(app))
        until(lambda: "there is no inbox" in (relay.inbox_problem() or ""), "the problem was not reported")
        setup.inbox = opened(tmp_path)
        until(lambda: relay.inbox_problem() is None, "the inbox was not opened")
        keep(setup.inbox, message(1, 1))
        until(lambda: app.requests, "nothing was received")


def test_stopping_waits_for_running_attempts(setup: Setup) -> None:
    """Their results are settled, so nothing is sent twice."""
    keep(setup.inbox, message(1, 1))
    with destination(saying(after=0.5)) as slow:
        relay = setup.start(to(slow))
        until(lambda: slow.requests, "nothing was received")
        relay.stop()
        setup.relay = None
        assert setup.status().backlog == 0
        setup.start(to(slow))
        time.sleep(0.5)
        assert len(slow.requests) == 1


def test_an_inbox_that_is_replaced(setup: Setup, app: Destination) -> None:
    """The relay reports it, and delivers the new one from its start."""
    keep(setup.inbox, *messages(20, 3))
    relay = setup.start(to(app))
    until(lambda: len(app.requests) == 20 and setup.status().backlog == 0, "not all were received")
    setup.inbox.close()
    (setup.directory / "inbox.db").rename(setup.directory / "old.db")
    until(relay.inbox_problem, "the problem was not reported")
    setup.inbox = opened(setup.directory)
    (event,) = keep(setup.inbox, message(1, 1000))
    until(lambda: len(app.requests) == 21, "nothing was received")
    assert app.requests[20].body == event.data
    until(lambda: relay.inbox_problem() is None, "the problem persists")


def test_a_410_while_the_state_is_locked(setup: Setup, app: Destination) -> None:
    """Results are kept until they can be stored: nothing is sent twice, and nothing is stuck."""
    with destination(saying(OK.replace(b"200", b"410"), after=0.3)) as gone:
        app.behave = saying(after=0.3)
        setup.start(to(app), to(gone, name="gone"))
        until(lambda: setup.joined("gone"), "the destinations file was not read")
        keep(setup.inbox, message(1, 1))
        until(lambda: app.requests and gone.requests, "nothing was received")
        other = apsw.Connection(str(setup.directory / "relay.db"))
        other.execute("BEGIN IMMEDIATE")
        time.sleep(7)  # longer than the lock timeout
        other.execute("COMMIT")
        other.close()
        until(lambda: setup.status("gone").disabled, "never disabled")
        until(lambda: setup.status().backlog == 0, "never settled")
        assert (len(app.requests), len(gone.requests)) == (1, 1)


def test_a_replay_of_events_that_the_relay_has_not_read(setup: Setup, app: Destination) -> None:
    """If the command is faster than the relay, each event is still delivered once."""
    events = keep(setup.inbox, *messages(10, 2))
    SqliteDeliveries(setup.store).join({"app": 0}, now=0)
    deliveries = [Delivery(position, event.partitionkey, 0) for position, event in enumerate(events, start=1)]
    assert SqliteDeliveryAdmin(setup.store).replay("app", deliveries, now=0) == 0
    setup.start(to(app))
    until(lambda: setup.status().position == 10 and setup.status().backlog == 0, "not all were received")
    assert len(app.requests) == 10


def test_a_destination_that_cannot_be_started_stops_no_other(
    setup: Setup, app: Destination, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """An invalid file of trusted certificates is reported, and the other destinations get their events."""
    (tmp_path / "broken.pem").write_text("no certificate")
    monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "broken.pem"))
    monkeypatch.setenv("SSLKEYLOGFILE", "/no/such/directory/keys")
    relay = setup.start({"name": "tls", "url": "https://localhost:1/"}, to(app))
    keep(setup.inbox, message(1, 1))
    until(lambda: app.requests, "nothing was received")
    assert relay.inbox_problem() is None
    assert relay.destinations_problem() is None or "'tls' can't be started" in str(relay.destinations_problem())


def test_events_that_were_purged_unread_are_counted(setup: Setup, app: Destination) -> None:
    """A destination left the file, and was added again after the retention."""
    work = SqliteDeliveries(setup.store)
    work.join({"app": 0}, now=0)
    keep(setup.inbox, *messages(5, 2))
    setup.inbox._db.execute("DELETE FROM event WHERE position <= 3")
    setup.start(to(app))
    until(lambda: len(app.requests) == 2, "not both were received")
    purged = {"destination": "app", "reason": "retention"}
    until(lambda: setup.metric("dead_letters_total", purged) == 3, "the purged events were not counted")


@pytest.mark.parametrize(
    ("reason", "limits"),
    [
        ("rejected", {"permanentAttempts": 3, "permanentAfter": "1s"}),
        ("attempts", {"maxAttempts": 3}),
    ],
)
def test_after_a_permanent_failure_the_events_behind_it_are_delivered(
    setup: Setup, reason: str, limits: dict[str, Any]
) -> None:
    """Ten events of the same customer fail twice each: they do not inherit the count of the dead letter."""
    bad, *others = keep(setup.inbox, *(message(1, number) for number in range(11)))
    keep(setup.inbox, message(2, 100))  # another customer's event, which is accepted
    attempts = Counter[bytes]()

    def answer(request: Request, client: Any) -> None:
        attempts[request.body] += 1
        is_accepted = request.headers["ce-partitionkey"] != bad.partitionkey or attempts[request.body] > 2
        client.sendall(OK if is_accepted and request.body != bad.data else REJECTED)

    with destination(answer) as app:
        setup.start(to(app, delivery={**limits, "backoff": {"first": "100ms", "max": "200ms"}}))
        until(lambda: app.requests, "nothing was received")
        while setup.status().backlog:
            keep(setup.inbox, message(2, 101 + len(app.requests)))
            time.sleep(0.5)
    assert [(dead.position, dead.reason, dead.status) for dead in setup.dead_letters()] == [(1, reason, 422)]
    assert [attempts[event.data] for event in others] == [3] * 10


def test_with_skip_the_events_behind_a_failing_one_are_delivered(setup: Setup) -> None:
    """It waits in a queue of its own, holds the low-watermark, and arrives late."""
    bad, *others = keep(setup.inbox, *(message(1, number) for number in range(5)))
    with destination() as app:
        app.behave = lambda request, client: client.sendall(FAILED if request.body == bad.data else OK)
        skip = {"onFailure": "skip", "skipAfter": 2, "backoff": {"first": "100ms", "max": "1s"}}
        setup.start(to(app, delivery=skip))
        until(lambda: len(set(app.bodies())) == 5 and setup.status().backlog == 1, lambda: str(app.bodies()))
        received = [body for body in app.bodies() if body != bad.data]
        assert received == [event.data for event in others]
        (pending,) = SqliteDeliveryAdmin(setup.store).pending("app", after=0, limit=9, now=0)
        assert (pending.position, pending.skipped) == (1, True)
        assert SqliteDeliveryAdmin(setup.store).history(1)[0].state == "skipped"
        assert low_watermark(setup.directory / "relay.db", now=int(setup.now() * 1000), policy=DELIVERY_POLICY) == 1
        app.behave = saying()
        until(lambda: setup.status().backlog == 0, lambda: str(setup.status()))
        assert app.bodies()[-1] == bad.data


def test_a_misconfigured_destination(setup: Setup, app: Destination) -> None:
    """It is attempted once at a time, no message is counted, and "retry now" delivers everything at once."""
    logged = io.StringIO()
    logs.configure(level="warning", form="json", stream=logged)
    app.behave = saying(UNAUTHORIZED)
    keep(setup.inbox, *messages(40, 20))
    relay = setup.start(to(app, concurrency=8))
    until(lambda: "app" in relay.states(), "the destinations file was not read")
    until(lambda: relay.states()["app"].health is DeliveryHealth.MISCONFIGURED, lambda: str(relay.states()))
    assert relay.states()["app"].status == 401
    time.sleep(1)
    before = len(app.requests)
    assert before < 60

    def warnings() -> list[str]:
        return [line for line in logged.getvalue().splitlines() if "destination is misconfigured" in line]

    assert len(warnings()) == 1, "once in ten minutes"
    assert "401" in warnings()[0]
    assert "check the signing secret" in warnings()[0]
    assert {each.attempts for each in SqliteDeliveryAdmin(setup.store).pending("app", after=0, limit=99, now=0)} == {0}
    setup.ahead += 601
    until(lambda: len(warnings()) == 2, "not logged again after ten minutes")
    app.behave = saying()
    repaired = time.monotonic()
    SqliteDeliveryAdmin(setup.store).retry("app", now=int(setup.now() * 1000))
    until(lambda: setup.status().backlog == 0, lambda: str(setup.status()))
    assert time.monotonic() - repaired < 3
    assert relay.states()["app"].health is DeliveryHealth.OK


def test_evidence_of_failed_attempts(setup: Setup, app: Destination) -> None:
    """`keepResponses: false` keeps the reason only; what was delivered has none."""
    keep(setup.inbox, message(1, 1))
    answer = b"HTTP/1.1 500 X\r\nContent-Type: text/plain\r\nContent-Length: 4\r\n\r\nwhy?"
    app.behave = saying(answer)
    with destination(saying(answer)) as other:
        setup.start(to(app), to(other, name="other", keepResponses=False))
        until(lambda: app.requests and other.requests, "nothing was received")
        app.behave = other.behave = saying()
        until(lambda: setup.status().backlog == setup.status("other").backlog == 0, "not delivered")
    own, others = SqliteDeliveryAdmin(setup.store).history(1)
    failed, delivered = own.attempts
    assert failed.evidence is not None
    assert (failed.evidence.reason, failed.evidence.text) == ("responded with 500 Internal Server Error", "why?")
    assert (delivered.status, delivered.evidence) == (200, None)
    assert others.attempts[0].evidence == AttemptEvidence("responded with 500 Internal Server Error")


def test_the_rate_limit_of_a_destination(setup: Setup, app: Destination) -> None:
    """It holds from the first second on."""
    keep(setup.inbox, *messages(200, 100))
    setup.start(to(app, concurrency=8, delivery={"rateLimit": "20/s"}))
    until(lambda: app.requests, "nothing was received")
    time.sleep(3)
    assert 50 <= len(app.requests) <= 66
