"""The relay in one process: a real inbox, real destinations, and a clock that a test moves."""

import os
import random
import socket
import struct
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing
from pathlib import Path
from typing import Any

import apsw
import pytest

from service.instruments import Instruments
from service.relay.destination_registry import DestinationRegistry
from service.relay.loop import Relay
from service.storage.deliveries import DeadLetter, Delivery, DestinationStatus
from service.storage.delivery_policy import DELIVERY_POLICY
from service.storage.sqlite import SqliteInbox, SqliteLog
from service.storage.sqlite.delivery_admin import SqliteDeliveryAdmin
from service.storage.sqlite.delivery_database import SqliteDeliveryDatabase
from service.storage.sqlite.delivery_queue import SqliteDeliveries
from service.telemetry import metrics
from service.telemetry.tracing import Tracing
from tests.support.destination import OK, Destination, Request, destination, saying
from tests.support.relaying import keep, message, messages, opened, write
from tests.support.server import until

HOUR = 3600.0
WEEK = 7 * 86_400.0


class House:
    """An inbox, a relay, and the time that the relay goes by: the real one, and what a test adds."""

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
        """Return how many attempts ended, and what follows from them is decided."""
        found = self.registry.collect()
        samples = [sample for metric in found for sample in metric.samples if sample.name.endswith("attempts_total")]
        return int(sum(sample.value for sample in samples if sample.labels["destination"] == name))

    def advance(self, seconds: float, made: Destination) -> None:
        """Move the clock, and wait for the attempts that follow: what is under way as it moves loses its lease."""
        before = self.attempts()
        self.ahead += seconds
        until(lambda: before < self.attempts() == len(made.requests), "never tried again")

    def close(self) -> None:
        if self.relay:
            self.relay.stop()
        self.store.close()
        self.inbox.close()


@pytest.fixture
def house(tmp_path: Path) -> Iterator[House]:
    with closing(House(tmp_path)) as made:
        yield made


@pytest.fixture
def app() -> Iterator[Destination]:
    with destination() as made:
        yield made


def to(made: Destination, **more: Any) -> dict[str, Any]:
    return {"url": f"http://127.0.0.1:{made.port}/hook", **more}


def test_everything_comes_in_the_order_of_each_key(house: House, app: Destination) -> None:
    """Byte for byte what was kept."""
    events = keep(house.inbox, *messages(500, 7))
    house.start(to(app, concurrency=16))
    until(lambda: len(app.requests) == 500, lambda: f"{len(app.requests)} of 500 came")
    assert sorted(app.bodies()) == sorted(event.data for event in events)
    for key in {event.partitionkey for event in events}:
        wanted = [event.data for event in events if event.partitionkey == key]
        came = [request.body for request in app.requests if request.headers["ce-partitionkey"] == key]
        assert came == wanted
    until(lambda: house.status().backlog == 0, "something is still owed")
    assert house.metric("attempts_total", {"destination": "app", "outcome": "delivered"}) == 500


def test_what_comes_later_is_delivered_too(house: House, app: Destination) -> None:
    """Within moments."""
    house.start(to(app))
    until(house.joined, "never read")
    started = time.monotonic()
    keep(house.inbox, message(1, 1))
    until(lambda: app.requests, "nothing came")
    assert time.monotonic() - started < 1


def test_a_destination_that_is_added_begins_with_what_comes(house: House, app: Destination) -> None:
    """Unless it says `from: beginning`."""
    keep(house.inbox, message(1, 1))
    with destination() as other:
        house.start(to(app, **{"from": "now"}), to(other, name="other"))
        until(lambda: other.requests, "nothing came")
        (late,) = keep(house.inbox, message(1, 2))
        until(lambda: app.requests, "nothing came")
        assert app.bodies() == [late.data]


def test_the_file_changes(house: House, app: Destination) -> None:
    """One is added, another changes its URL, a third leaves: all while running."""
    with destination() as other:
        house.start(to(app), to(other, name="other"))
        until(lambda: house.joined() and house.joined("other"), "never read")
        write(house.directory, to(other))  # app goes to where other was
        until(lambda: house.status("other").gone_since, "never seen")
        time.sleep(0.1)
        keep(house.inbox, message(1, 1))
        until(lambda: other.requests, "nothing came")
        time.sleep(0.2)
        assert (len(app.requests), len(other.requests)) == (0, 1)


def test_a_file_that_turns_bad_changes_nothing(house: House, app: Destination) -> None:
    """And /readyz says what is wrong with it."""
    relay = house.start(to(app))
    until(house.joined, "never read")
    (house.directory / "destinations.yaml").write_text("destinations: [{nam: app}]")
    until(relay.unread, "never seen")
    assert "nam is not known" in str(relay.unread())
    keep(house.inbox, message(1, 1))
    until(lambda: app.requests, "nothing came")


def test_one_that_hangs_delays_no_other(house: House, app: Destination) -> None:
    """Nor does a key that is refused for ever delay another key at the same destination."""
    keep(house.inbox, *messages(100, 10))
    poisoned = keep(house.inbox, message(3, 1000))[0].partitionkey

    def choosy(request: Request, client: Any) -> None:
        bad = request.headers["ce-partitionkey"] == poisoned
        client.sendall(OK.replace(b"200 OK", b"422 X") if bad else OK)

    with destination(saying(after=30)) as slow, destination(choosy) as poison:
        house.start(to(app), to(slow, name="slow", timeout=20), to(poison, name="poison"), chance=lambda: 1.0)
        until(lambda: len(app.requests) == 101, lambda: f"{len(app.requests)} of 101", patience=5)
        until(lambda: house.status("poison").backlog == 11, lambda: str(house.status("poison")), patience=5)
        assert house.status("slow").backlog == 101
        write(house.directory, to(app))  # so that nobody waits for the slow one at the end
        slow.close()


def test_a_410_disables_until_somebody_enables(house: House) -> None:
    """What is owed stays owed."""
    keep(house.inbox, *messages(3, 1))
    with destination(saying(OK.replace(b"200", b"410"))) as gone:
        house.start(to(gone))
        until(lambda: gone.requests, "nothing came")
        until(lambda: house.status().disabled, "never disabled")
        assert house.status().disabled == "it answered 410"
        time.sleep(0.3)
        assert (len(gone.requests), house.status().backlog) == (1, 3)
        gone.behave = saying()
        SqliteDeliveryAdmin(house.store).disable("app", None)
        until(lambda: len(gone.requests) == 4, "never went on")
    assert [request.headers["ce-id"] for request in gone.requests[:2]] == [gone.requests[0].headers["ce-id"]] * 2


def test_a_redirect_is_followed_nowhere(house: House, app: Destination) -> None:
    """It is a failure like any other."""
    keep(house.inbox, message(1, 1))
    there = f"HTTP/1.1 307 X\r\nLocation: http://127.0.0.1:{app.port}/\r\nContent-Length: 0\r\n\r\n"
    with destination(saying(there.encode())) as moved:
        house.start(to(moved), chance=lambda: 1.0)
        until(lambda: moved.requests, "nothing came")
        until(lambda: house.metric("attempts_total", {"destination": "app", "outcome": "redirect"}), "not counted")
    assert app.requests == []


def test_retry_after_is_heeded(house: House) -> None:
    """The queue waits as long as was asked for; another queue does not."""
    keep(house.inbox, message(1, 1), message(2, 2))

    def later(request: Request, client: Any) -> None:
        busy = request.headers["ce-partitionkey"].endswith("1") and house.ahead == 0
        client.sendall(b"HTTP/1.1 429 X\r\nRetry-After: 900\r\nContent-Length: 0\r\n\r\n" if busy else OK)

    with destination(later) as busy:
        house.start(to(busy), chance=lambda: 0.0)
        until(lambda: len(busy.requests) == 2 and house.status().backlog == 1, "not both came")
        time.sleep(0.3)
        assert len(busy.requests) == 2
        house.ahead = 901
        until(lambda: len(busy.requests) == 3, "never tried again")
        until(lambda: house.status().backlog == 0, "still owed")


def test_after_three_days_it_is_dead(house: House) -> None:
    """With its reason and attempts; what comes behind it in its queue is tried, with the same patience."""
    (first,) = keep(house.inbox, message(1, 1))
    with destination(saying(OK.replace(b"200", b"500"))) as broken:
        house.start(to(broken), chance=lambda: 1.0)
        while house.attempts() <= DELIVERY_POLICY.min_attempts:
            house.advance(HOUR, broken)  # the longest wait
        house.advance(DELIVERY_POLICY.max_age_ms / 2000, broken)
        (second,) = keep(house.inbox, message(1, 2))
        until(lambda: house.status().backlog == 2, "never planned")
        house.advance(DELIVERY_POLICY.max_age_ms / 2000, broken)
        until(house.dead_letters, "never dead")
        broken.behave = saying()
        assert [(dead.position, dead.reason) for dead in house.dead_letters()] == [(1, "expired")]
        assert house.dead_letters()[0].attempts > DELIVERY_POLICY.min_attempts
        house.ahead += HOUR
        until(lambda: house.status().backlog == 0, "never delivered")
    assert broken.requests[-1].body == second.data
    assert broken.requests[0].body == first.data
    assert house.metric("dead_letters_total", {"destination": "app", "reason": "expired"}) == 1


def poisoned(how: str, customers: int) -> Callable[[Request, Any], None]:
    """Fail what is of the first so many customers, take everything else."""

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
def test_customers_whose_message_is_not_taken_stop_nobody_else(
    house: House, how: str, customers: int, within: float
) -> None:
    """Of forty-eight others nine in ten are delivered within so many seconds, and all in the end."""
    keep(house.inbox, *(message(number, number) for number in range(customers)))
    with destination(poisoned(how, customers)) as app:
        house.start(to(app, timeout="300ms", concurrency=8))
        until(lambda: len(app.requests) >= 5, "nothing came")
        kept_at: dict[bytes, float] = {}
        for number in range(48):
            (event,) = keep(house.inbox, message(200 + number, 1000 + number))
            kept_at[event.data] = time.monotonic()
            time.sleep(0.1)

        def delays() -> list[float]:
            came = {request.body: request.at for request in reversed(app.requests)}
            return sorted(came[body] - at for body, at in kept_at.items() if body in came)

        until(lambda: len(delays()) == 48, lambda: f"{len(delays())} of 48", patience=4 * within)
        print(f"{how}, {customers} of them: median {delays()[24]:.1f} s, nine in ten {delays()[43]:.1f} s")
        assert delays()[43] < within


def test_an_application_that_fails_for_everybody(house: House) -> None:
    """Gets at most five attempts a second, however many customers write."""
    keep(house.inbox, *messages(400, 200))
    with destination(saying(OK.replace(b"200", b"500"))) as app:
        house.start(to(app, concurrency=8))
        until(lambda: app.requests, "nothing came")
        time.sleep(0.5)
        before = len(app.requests)
        time.sleep(4)
        assert 1 <= len(app.requests) - before <= 4 * 5


def test_down_for_an_hour(house: House, app: Destination) -> None:
    """Others are unaffected; when it is back everything comes in order, and not more at once than it takes."""
    events = keep(house.inbox, *messages(400, 20))
    at_once, most, lock = 0, [0], threading.Lock()

    def count(_request: Request, client: Any) -> None:
        nonlocal at_once
        with lock:
            at_once += 1
            most[0] = max(most[0], at_once)
        time.sleep(0.001)
        with lock:
            at_once -= 1
        client.sendall(OK)

    down = Destination(saying())
    port = down.port
    down.close()
    house.start(to(app), {"name": "down", "url": f"http://127.0.0.1:{port}/", "concurrency": 8})
    until(lambda: len(app.requests) == 400, lambda: f"{len(app.requests)} of 400", patience=10)
    breaker = {"destination": "down", "outcome": "connection"}
    for minute in range(60):
        house.ahead = minute * 60
        time.sleep(0.01)
    tried = house.metric("attempts_total", breaker)
    assert 5 <= tried < 150, "a destination that is down is tried once in a while"
    back = Destination(count, port=port)
    house.ahead = 2 * HOUR + 61
    until(lambda: house.status("down").backlog == 0, lambda: str(house.status("down")))
    back.close()
    assert most[0] <= 8
    for key in {event.partitionkey for event in events}:
        wanted = [event.data for event in events if event.partitionkey == key]
        assert [each.body for each in back.requests if each.headers["ce-partitionkey"] == key] == wanted


def test_what_the_retention_took_is_dead(house: House, app: Destination) -> None:
    """And said, with the reason; what is behind it goes on."""
    keep(house.inbox, message(1, 1), message(1, 2))
    house.inbox._db.execute("UPDATE event SET data = NULL WHERE position = 1")
    work = SqliteDeliveries(house.store)
    work.join({"app": 0}, now=0)
    assert work.plan("app", 0, 2, [Delivery(1, "queue", 0), Delivery(2, "queue", 0)], now=0)
    house.start(to(app))
    until(lambda: app.requests and house.status().backlog == 0, "nothing came")
    assert [(dead.position, dead.reason) for dead in house.dead_letters()] == [(1, "retention")]


def test_an_inbox_that_is_not_there_yet(tmp_path: Path, app: Destination) -> None:
    """Is waited for, and said."""
    with closing(House(tmp_path)) as house:
        house.inbox.close()
        for file in tmp_path.glob("inbox.db*"):
            file.unlink()
        relay = house.start(to(app))
        until(lambda: "there is no inbox" in (relay.trouble() or ""), "never said")
        house.inbox = opened(tmp_path)
        until(lambda: relay.trouble() is None, "never seen")
        keep(house.inbox, message(1, 1))
        until(lambda: app.requests, "nothing came")


def test_the_end_waits_for_what_is_under_way(house: House) -> None:
    """And writes down how it went: nothing is sent twice."""
    keep(house.inbox, message(1, 1))
    with destination(saying(after=0.5)) as slow:
        relay = house.start(to(slow))
        until(lambda: slow.requests, "nothing came")
        relay.stop()
        house.relay = None
        assert house.status().backlog == 0
        house.start(to(slow))
        time.sleep(0.5)
        assert len(slow.requests) == 1


def test_an_inbox_that_is_replaced(house: House, app: Destination) -> None:
    """While the relay runs: all of the new one is delivered, from its start, and it is said."""
    keep(house.inbox, *messages(20, 3))
    relay = house.start(to(app))
    until(lambda: len(app.requests) == 20 and house.status().backlog == 0, "not all came")
    house.inbox.close()
    (house.directory / "inbox.db").rename(house.directory / "old.db")
    until(relay.trouble, "never noticed")
    house.inbox = opened(house.directory)
    (event,) = keep(house.inbox, message(1, 1000))
    until(lambda: len(app.requests) == 21, "nothing came")
    assert app.requests[20].body == event.data
    until(lambda: relay.trouble() is None, "never well")


def test_a_410_while_the_state_is_locked(house: House, app: Destination) -> None:
    """What came of the attempts is kept until it can be written: nothing is sent twice, and nothing is stuck."""
    with destination(saying(OK.replace(b"200", b"410"), after=0.3)) as gone:
        app.behave = saying(after=0.3)
        house.start(to(app), to(gone, name="gone"))
        until(lambda: house.joined("gone"), "never read")
        keep(house.inbox, message(1, 1))
        until(lambda: app.requests and gone.requests, "nothing came")
        other = apsw.Connection(str(house.directory / "relay.db"))
        other.execute("BEGIN IMMEDIATE")
        time.sleep(7)  # longer than anybody waits for the lock
        other.execute("COMMIT")
        other.close()
        until(lambda: house.status("gone").disabled, "never disabled")
        until(lambda: house.status().backlog == 0, "never written down")
        assert (len(app.requests), len(gone.requests)) == (1, 1)


def test_a_replay_of_what_the_relay_has_not_read(house: House, app: Destination) -> None:
    """By a command that is faster than it: each event comes once, and the relay goes on."""
    events = keep(house.inbox, *messages(10, 2))
    SqliteDeliveries(house.store).join({"app": 0}, now=0)
    owed = [Delivery(position, event.partitionkey, 0) for position, event in enumerate(events, start=1)]
    assert SqliteDeliveryAdmin(house.store).replay("app", owed, now=0) == 0
    house.start(to(app))
    until(lambda: house.status().position == 10 and house.status().backlog == 0, "not all came")
    assert len(app.requests) == 10


def test_one_that_cannot_be_served_stops_no_other(
    house: House, app: Destination, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """A trusted authority that is no certificate: said, and the others get theirs."""
    (tmp_path / "broken.pem").write_text("no certificate")
    monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "broken.pem"))
    monkeypatch.setenv("SSLKEYLOGFILE", "/no/such/directory/keys")
    relay = house.start({"name": "tls", "url": "https://localhost:1/"}, to(app))
    keep(house.inbox, message(1, 1))
    until(lambda: app.requests, "nothing came")
    assert relay.trouble() is None
    assert relay.unread() is None or "'tls' can't be delivered to" in str(relay.unread())


def test_what_was_purged_while_it_was_away_is_told(house: House, app: Destination) -> None:
    """A destination that left the file and comes again later than the retention."""
    work = SqliteDeliveries(house.store)
    work.join({"app": 0}, now=0)
    keep(house.inbox, *messages(5, 2))
    house.inbox._db.execute("DELETE FROM event WHERE position <= 3")
    house.start(to(app))
    until(lambda: len(app.requests) == 2, "not both came")
    until(lambda: house.metric("dead_letters_total", {"destination": "app", "reason": "retention"}) == 3, "never told")
