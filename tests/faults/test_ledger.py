"""Whatever the destination does, and however often the relay is killed, every event is delivered."""

import json
import os
import random
import signal
import ssl
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import closing, suppress
from pathlib import Path
from typing import Any

import pytest
import trustme

from service.events import Event
from service.meta import catalogue
from tests.support.destination import OK, Request, destination, saying
from tests.support.engines import Servers
from tests.support.relaying import Relay, keep, message, messages, opened, write
from tests.support.server import Server, until

EVENTS = int(os.environ.get("TEST_RELAY_EVENTS", "1000"))
FAULT_SHARE = 0.1  # of the requests, and of the TLS handshakes
TIMEOUT = 1.0


def answer(status: str, more: str = "", body: bytes = b"") -> bytes:
    return f"HTTP/1.1 {status}\r\n{more}Content-Length: {len(body)}\r\n\r\n".encode() + body


def endless(_request: Request, client: Any) -> None:
    client.sendall(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
    while True:
        client.sendall(b"1000\r\n" + b"x" * 4096 + b"\r\n")


def half_open(_request: Request, client: Any) -> None:
    time.sleep(2 * TIMEOUT)
    client.close()


FAULTS = {
    "500": saying(answer("500 X")),
    "429": saying(answer("429 X", "Retry-After: 1\r\n")),
    "redirect": saying(answer("302 X", "Location: /elsewhere\r\n")),
    "timeout": saying(OK, after=2 * TIMEOUT),
    "closed": lambda _request, client: client.close(),
    "half-open": half_open,
    "closed in the answer": saying(b"HTTP/1.1 200"),
    "endless body": endless,
    "not HTTP": saying(b"nonsense\r\n\r\n"),
}
# Faults after which the relay must still regard the event as delivered, because it received a status of 200.
DELIVERED_FAULTS = ("endless body",)


class Faulty:
    """A behaviour that has random faults, and records which bodies it answered with 200."""

    def __init__(self) -> None:
        self.random = random.Random(5)
        self.lock = threading.Lock()
        self.accepted: list[bytes] = []  # in the order in which they were answered 200
        self.faults: Counter[str] = Counter()

    def __call__(self, request: Request, client: Any) -> None:
        with self.lock:
            fault = self.random.choice(list(FAULTS)) if self.random.random() < FAULT_SHARE else None
            self.faults[fault or "none"] += 1
            if fault is None or fault in DELIVERED_FAULTS:
                self.accepted.append(request.body)
        with suppress(OSError):
            (FAULTS[fault] if fault else saying())(request, client)
        if fault:
            client.close()


def contexts(directory: Path) -> Iterator[ssl.SSLContext]:
    """Yield TLS contexts: mostly of an authority that the relay trusts, sometimes of one that it does not."""
    trusted, untrusted = trustme.CA(), trustme.CA()
    trusted.cert_pem.write_to_path(directory / "trusted.pem")
    choices = []
    for authority in (trusted, untrusted):
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        authority.issue_cert("localhost").configure_cert(context)
        choices.append(context)
    chance = random.Random(7)
    while True:
        yield choices[chance.random() < FAULT_SHARE]


def check_order(events: list[Event], accepted: list[bytes]) -> None:
    """Check that the first deliveries of each partition key are in the order of the log."""
    first = {body: number for number, body in reversed(list(enumerate(accepted)))}
    keys: dict[str, list[int]] = {}
    for event in events:
        keys.setdefault(event.partitionkey, []).append(first[event.data])
    assert all(numbers == sorted(numbers) for numbers in keys.values())


@pytest.fixture(params=["sqlite", pytest.param("postgresql", marks=pytest.mark.needs("postgresql"))])
def url(request: pytest.FixtureRequest, tmp_path: Path, servers: Servers) -> str:
    return f"sqlite://{tmp_path}/inbox.db" if request.param == "sqlite" else servers.postgresql().new_database()


@pytest.mark.timeout(1800)
def test_every_event_is_delivered_under_faults_and_kills(tmp_path: Path, url: str) -> None:
    """Byte for byte, in order for each partition key, although the relay is killed with SIGKILL every second."""
    number = EVENTS if url.startswith("sqlite") else EVENTS // 3
    with closing(opened(tmp_path, url)) as inbox:
        events = keep(inbox, *messages(number, max(number // 10, 20)))
    faulty, tls = Faulty(), contexts(tmp_path)
    next(tls)
    lock = threading.Lock()

    def context() -> ssl.SSLContext:
        with lock:
            return next(tls)

    started, kills = time.monotonic(), 0
    with destination(faulty, context) as app:
        write(
            tmp_path,
            {"url": f"https://localhost:{app.port}/", "timeout": TIMEOUT, "concurrency": 16},
        )
        relay = Relay(tmp_path, WEBHOOK_INBOX=url, SSL_CERT_FILE=str(tmp_path / "trusted.pem"))
        while set(faulty.accepted) != {event.data for event in events} or relay.backlog():
            assert time.monotonic() - started < 1500, f"{len(set(faulty.accepted))} of {len(events)} delivered"
            before = len(faulty.accepted)
            relay.start()
            until(
                lambda before=before: len(faulty.accepted) > before or not relay.backlog(),
                lambda before=before: f"nothing delivered: {before} before, {relay.backlog()} left, {faulty.faults}",
                180,  # several failures in a row make the last queue wait for a minute
            )
            time.sleep(1)
            relay.kill()
            kills += 1
    check_order(events, faulty.accepted)
    duplicates = len(faulty.accepted) - len(events)
    assert duplicates <= kills * 16 + faulty.faults["closed in the answer"], "more duplicates than were in flight"
    assert not any("dead" in line for line in relay.log_file.read_text().splitlines())
    assert all(faulty.faults[fault] for fault in FAULTS)
    print(
        f"{len(events)} events, {kills} kills, {duplicates} duplicates, in {time.monotonic() - started:.0f} s; "
        f"faults of requests: {dict(faulty.faults)}"
    )


class Rejecting(Faulty):
    """As `Faulty`, but it rejects some events with 422, whatever happens, and others the first time only."""

    def __init__(self, forever: set[bytes], once: set[bytes]) -> None:
        super().__init__()
        self.forever, self.once = forever, once

    def __call__(self, request: Request, client: Any) -> None:
        with self.lock:
            is_rejected = request.body in self.forever | self.once
            self.once.discard(request.body)
            self.faults["rejected"] += is_rejected
        if is_rejected:
            with suppress(OSError):
                client.sendall(answer("422 X"))
        else:
            super().__call__(request, client)


@pytest.mark.timeout(1800)
@pytest.mark.parametrize(
    ("url", "on_failure"),
    [
        ("sqlite", "block"),
        pytest.param("postgresql", "skip", marks=pytest.mark.needs("postgresql")),
        pytest.param("sqlite", "skip", marks=pytest.mark.long),
        pytest.param("postgresql", "block", marks=[pytest.mark.long, pytest.mark.needs("postgresql")]),
    ],
    indirect=["url"],
)
def test_permanent_failures_become_dead_letters_and_nothing_else(tmp_path: Path, url: str, on_failure: str) -> None:
    """One event in fifty is never accepted, one in ten only the second time; the relay is killed every three seconds.

    Each event is delivered or a dead letter. With `skip` the others keep their order, except those that failed.
    """
    number = EVENTS if EVENTS > 1000 else 300  # TEST_RELAY_EVENTS is the long form
    with closing(opened(tmp_path, url)) as inbox:
        events = keep(inbox, *messages(number, max(number // 10, 20)))
    forever = {event.data for event in events[7::50]}
    rejecting = Rejecting(forever, {event.data for event in events[3::10]} - forever)
    limits = {"permanentAttempts": 3, "permanentAfter": "1s", "backoff": {"first": "200ms", "max": "1s"}}
    if on_failure == "skip":
        limits |= {"onFailure": "skip", "skipAfter": 2}
    started, kills = time.monotonic(), 0
    with destination(rejecting) as app:
        entry = {"url": f"http://127.0.0.1:{app.port}/", "timeout": TIMEOUT, "concurrency": 16, "delivery": limits}
        write(tmp_path, entry)
        relay = Relay(tmp_path, WEBHOOK_INBOX=url)
        while not kills or relay.backlog():
            assert time.monotonic() - started < 1500, f"{relay.backlog()} pending, {rejecting.faults}"
            # A permanent failure is given up only if the same relay sees that another event is accepted.
            with closing(opened(tmp_path, url)) as inbox:
                events += keep(inbox, message(9000 + kills, 10_000_000 + kills))
            relay.start()
            time.sleep(3)
            relay.kill()
            kills += 1
        relay.start()
        relay.wait_until_ready()
        dead = [line.split() for line in relay.command("events", "dead-letters").splitlines()[1:]]
        assert [(row[:3], int(row[3])) for row in dead] == [(["app", "rejected", "422"], len(forever))]
        relay.stop()
    assert set(rejecting.accepted) == {event.data for event in events} - forever
    delivered = [event for event in events if event.data not in forever]
    if on_failure == "block":
        check_order(delivered, rejecting.accepted)
    print(
        f"{on_failure}: {len(events)} events, {kills} kills, {len(forever)} dead letters, "
        f"{len(rejecting.accepted) - len(delivered)} duplicates, in {time.monotonic() - started:.0f} s"
    )


class Crowd:
    """People who write with their number, their user id or both, who change both, and who also write in groups."""

    def __init__(self, people: int, groups: int) -> None:
        self.random = random.Random(11)
        self.people, self.groups = people, groups
        self.changes = [0] * people  # how often each person changed number and user id
        self.met: set[tuple[int, int]] = set()  # people whose pair was shown

    def identifiers(self, person: int) -> tuple[str, str]:
        version = self.changes[person]
        return f"1650{version}55{person:04}", f"US.{version}9{person:04}"

    def notification(self, number: int) -> tuple[str, bytes]:
        """Return a random notification, and the person or group whose order it must keep."""
        person = self.random.randrange(self.people)
        group = self.random.randrange(self.groups) if self.random.random() < 0.2 else None
        waid, userid = self.identifiers(person)
        message: dict[str, Any] = {"id": f"wamid.{number:08}", "timestamp": "1795000000", "type": "text"}
        message["text"] = {"body": str(number)}
        is_change = group is None and self.changes[person] < 9 and self.random.random() < 0.03
        if is_change:
            self.changes[person] += 1
            new_waid, new_userid = self.identifiers(person)
            system = {"type": "user_changed_number", "wa_id": new_waid, "user_id": new_userid}
            message |= {"from": waid, "type": "system", "system": {**system, "previous_user_id": userid}}
        else:
            first = (person, self.changes[person]) not in self.met
            shown = 2 if first else self.random.randrange(3)
            message |= {"from": waid} if shown != 1 else {}
            message |= {"from_user_id": userid} if shown != 0 else {}
            message |= {"group_id": f"group{group}"} if group is not None else {}
        self.met.add((person, self.changes[person]))
        value = {
            "messaging_product": "whatsapp",
            "metadata": {"display_phone_number": catalogue.BUSINESS, "phone_number_id": catalogue.PHONE_NUMBER_ID},
            "messages": [message],
        }
        entry = {"id": catalogue.ACCOUNT, "changes": [{"value": value, "field": "messages"}]}
        body = json.dumps({"object": "whatsapp_business_account", "entry": [entry]}).encode()
        return f"group {group}" if group is not None else f"person {person}", body


@pytest.mark.timeout(1800)
def test_one_order_per_person_and_group_over_identity_changes(tmp_path: Path, url: str) -> None:
    """Although the relay is killed every three seconds, and destinations fail at random; nothing is lost."""
    crowd = Crowd(people=30, groups=4)
    number = EVENTS // 3
    pairs = [crowd.notification(each) for each in range(number)]
    with closing(opened(tmp_path, url)) as inbox:
        events = keep(inbox, *(body for _, body in pairs))
    assert len(events) == number
    faulty = Faulty()
    started = time.monotonic()
    with destination(faulty) as app:
        write(tmp_path, {"url": f"http://127.0.0.1:{app.port}/", "timeout": TIMEOUT, "concurrency": 16})
        relay = Relay(tmp_path, WEBHOOK_INBOX=url)
        while set(faulty.accepted) != {event.data for event in events} or relay.backlog():
            assert time.monotonic() - started < 1500, f"{len(set(faulty.accepted))} of {number} delivered"
            relay.start()
            time.sleep(3)
            relay.kill()
    first = {body: at for at, body in reversed(list(enumerate(faulty.accepted)))}
    orders: dict[str, list[int]] = {}
    for (owner, _), event in zip(pairs, events, strict=True):
        orders.setdefault(owner, []).append(first[event.data])
    wrong = {owner: numbers for owner, numbers in orders.items() if numbers != sorted(numbers)}
    assert not wrong
    assert len({event.partitionkey for event in events}) > 2 * 30, "the identifiers did not change"


def test_two_relays_share_and_one_takes_over(tmp_path: Path, url: str) -> None:
    """Nothing is delivered twice; if one is killed, the other delivers its queues after their leases expired."""
    with closing(opened(tmp_path, url)) as inbox, destination(saying(after=0.005)) as app:
        events = keep(inbox, *messages(1500, 300))
        write(tmp_path, {"url": f"http://127.0.0.1:{app.port}/", "timeout": TIMEOUT})
        with Relay(tmp_path, WEBHOOK_INBOX=url) as one, Relay(tmp_path, WEBHOOK_INBOX=url) as other:
            until(lambda: len(app.requests) >= 1500, lambda: f"{len(app.requests)} received", 90)
            until(lambda: one.backlog() == 0, "still pending")
            delivered, timed_out = (
                [relay.metric("whatsapp_webhook_relay_attempts_total", outcome=outcome) for relay in (one, other)]
                for outcome in ("delivered", "timeout")
            )
            assert set(app.bodies()) == {event.data for event in events}
            assert sum(delivered) == 1500
            assert min(delivered) > 0, "only one of them delivered"
            # On a busy machine an attempt can time out although the request was received.
            assert len(app.requests) <= 1500 + sum(timed_out)
            app.behave = saying(after=0.3)
            before = len(app.requests)
            more = keep(inbox, *(message(person, 5000 + person) for person in range(40)))
            until(lambda: len(app.requests) >= before + 5, "nothing was received")
            one.kill()
            killed = time.monotonic()
            app.behave = saying()
            until(lambda: {event.data for event in more} <= set(app.bodies()), "not all were received", 40)
            until(lambda: other.backlog() == 0, "still pending", 40)
            assert time.monotonic() - killed < TIMEOUT + 15 + 5
            assert len(app.requests) <= before + 40 + 4, "more were delivered twice than were in flight"


def test_concurrent_commits_are_never_skipped(tmp_path: Path) -> None:
    """Concurrent notifications through the real receiver, while the relay reads: every event is delivered."""
    with destination() as app, Server(tmp_path) as server:
        write(tmp_path, {"url": f"http://127.0.0.1:{app.port}/"})
        relay = Relay(tmp_path)
        relay.start()

        def send() -> None:
            for _ in range(100):
                assert server.notify(catalogue.notification("message text")).status == 200

        senders = [threading.Thread(target=send) for _ in range(8)]
        for sender in senders:
            sender.start()
        for sender in senders:
            sender.join()
        until(lambda: len(app.requests) >= 800, lambda: f"{len(app.requests)} of 800 received")
        relay.stop()
        assert sorted(app.bodies()) == sorted(event.data for event in server.kept())


@pytest.mark.needs("postgresql")
def test_concurrent_commits_of_two_pods_are_never_skipped(tmp_path: Path, servers: Servers) -> None:
    """Two receivers with two workers each, while two relays read: every event is delivered exactly once."""
    url = servers.postgresql().new_database()
    for name in ("one", "other"):
        (tmp_path / name).mkdir()
    with (
        destination() as app,
        Server(tmp_path / "one", WEBHOOK_INBOX=url, WEBHOOK_WORKERS="2") as one,
        Server(tmp_path / "other", WEBHOOK_INBOX=url, WEBHOOK_WORKERS="2") as other,
    ):
        write(tmp_path, {"url": f"http://127.0.0.1:{app.port}/"})
        with Relay(tmp_path, WEBHOOK_INBOX=url), Relay(tmp_path, WEBHOOK_INBOX=url):

            def send(server: Server) -> None:
                for _ in range(100):
                    assert server.notify(catalogue.notification("message text")).status == 200

            senders = [threading.Thread(target=send, args=(server,)) for server in (one, other) * 4]
            for sender in senders:
                sender.start()
            for sender in senders:
                sender.join()
            until(lambda: len(app.requests) >= 800, lambda: f"{len(app.requests)} of 800 received")
        assert sorted(app.bodies()) == sorted(event.data for event in one.kept())


def test_the_relay_never_reads_past_an_open_transaction(tmp_path: Path) -> None:
    """Uncommitted events are invisible, and events that are committed later have higher positions."""
    with closing(opened(tmp_path)) as inbox, destination() as app:
        write(tmp_path, {"url": f"http://127.0.0.1:{app.port}/"})
        (first,) = keep(inbox, message(0, 0))
        with Relay(tmp_path):
            until(lambda: app.bodies() == [first.data], "the first was not received")
            late = _open_transaction(inbox)
            time.sleep(0.3)
            assert len(app.requests) == 1
            inbox._db.execute("COMMIT")
            (event,) = keep(inbox, message(2, 2))
            until(lambda: len(app.requests) == 3, "not both were received")
            assert set(app.bodies()) == {first.data, late, event.data}


def _open_transaction(inbox: Any) -> bytes:
    inbox._db.execute("BEGIN IMMEDIATE")
    (event,) = keep(inbox, message(1, 1))
    return event.data


def test_the_receiver_never_waits_for_the_relay(tmp_path: Path) -> None:
    """If a destination hangs, or the relay is stopped with SIGSTOP, notifications are answered as usual."""
    with destination(saying(after=60)) as app, Server(tmp_path) as server:
        write(tmp_path, {"url": f"http://127.0.0.1:{app.port}/", "timeout": 30})
        relay = Relay(tmp_path)
        relay.start()
        relay.wait_until_ready()
        for _ in range(20):
            assert server.notify(catalogue.notification("message text")).status == 200
        until(lambda: app.requests, "nothing was received")
        assert relay.process is not None
        relay.process.send_signal(signal.SIGSTOP)
        started = time.monotonic()
        for _ in range(50):
            assert server.notify(catalogue.notification("message text")).status == 200
        assert time.monotonic() - started < 5
        relay.kill()
