"""The relay and its commands, as an operator runs them."""

import json
import signal
import time
from collections.abc import Iterator, Sequence
from contextlib import closing
from pathlib import Path

import pytest

from service.config import inbox_url
from service.events import Event
from service.meta import catalogue
from service.storage import low_watermark
from service.storage.deliveries import Attempt, Delivery, DestinationStatus, QueueKind, Ruling, Settlement, Verdict
from service.storage.protocols import Record, Terms
from service.storage.sqlite import SqliteInbox, SqliteLog
from service.storage.sqlite.delivery_admin import SqliteDeliveryAdmin
from service.storage.sqlite.delivery_database import SqliteDeliveryDatabase
from service.storage.sqlite.delivery_queue import SqliteDeliveries
from tests.support.destination import OK, Destination, destination, saying
from tests.support.relaying import Relay, keep, message, messages, opened, write
from tests.support.server import Server, free_port, until

BROKEN = OK.replace(b"200 OK", b"500 X")


@pytest.fixture
def app() -> Iterator[Destination]:
    with destination() as made:
        yield made


@pytest.fixture
def kept(tmp_path: Path, app: Destination) -> list[Event]:
    """Six messages of three people, all of them delivered."""
    write(tmp_path, {"url": f"http://127.0.0.1:{app.port}/"})
    with closing(opened(tmp_path)) as inbox:
        events = keep(inbox, *messages(6, 3))
    with Relay(tmp_path) as relay:
        until(lambda: relay.owed() == 0 and len(app.requests) == 6, "not all came")
    return events


def test_what_is_missing_is_a_sentence(tmp_path: Path) -> None:
    """No traceback, and what to do."""
    relay = Relay(tmp_path)
    relay.environ["WEBHOOK_DESTINATIONS"] = ""
    assert "WEBHOOK_DESTINATIONS wants the path of a file" in relay.command("relay", ok=False)
    relay.environ["WEBHOOK_DESTINATIONS"] = str(relay.file)
    relay.environ["WEBHOOK_INBOX"] = "memory://?durability=weak"
    assert "can't read an inbox in memory" in relay.command("relay", ok=False)
    relay = Relay(tmp_path)
    assert "no relay has run" in relay.command("destinations", "list", ok=False)
    assert "no relay has run" in relay.command("events", "dead-letters", "--inbox", f"sqlite://{relay.inbox}", ok=False)
    (tmp_path / "relay.db").mkdir()
    assert "relay.db is not a file" in relay.command("relay", ok=False)


def test_a_port_that_is_taken_is_a_sentence(tmp_path: Path) -> None:
    """As it is for `serve`."""
    with closing(opened(tmp_path)):
        pass
    write(tmp_path)
    with Relay(tmp_path) as one:
        other = Relay(tmp_path, WEBHOOK_RELAY_BIND=one.environ["WEBHOOK_RELAY_BIND"])
        said = other.command("relay", ok=False)
    assert "WEBHOOK_RELAY_BIND" in said
    assert "Traceback" not in said


def test_check_says_every_problem_of_the_destinations(tmp_path: Path) -> None:
    """At once."""
    relay = Relay(tmp_path)
    write(tmp_path, {"url": "ftp://x", "nme": 1}, {"name": "other", "url": "https://a.b", "format": "xml"})
    said = relay.command("check", ok=False)
    for problem in ("wants a URL", "nme is not known: did you mean name", "'meta' or 'cloudevents'"):
        assert problem in said
    write(tmp_path, {"url": "https://app.example.com"})
    (tmp_path / "cloudevents-secret").write_text("whsec_!!\n")
    assert "wants base64 behind whsec_ (line 1)" in relay.command("check", ok=False)


def test_the_story_of_an_event(tmp_path: Path, kept: list[Event]) -> None:
    """By position and by id: each try, when, how long, with what status."""
    relay = Relay(tmp_path)
    for which in ("2", kept[1].id):
        told = json.loads(relay.command("events", "show", which))
        (delivery,) = told["deliveries"]
        assert (delivery["destination"], delivery["state"]) == ("app", "delivered")
        (tried,) = delivery["attempts"]
        assert (tried["status"], tried["outcome"]) == (200, "delivered")
        assert 0 <= tried["seconds"] < 5
        assert tried["at"].endswith("Z")


def test_a_destination_is_stopped_and_goes_on(tmp_path: Path, kept: list[Event], app: Destination) -> None:
    """While the relay runs; the list says it."""
    with Relay(tmp_path) as relay:
        assert "app is disabled." in relay.command("destinations", "disable", "app", "--reason", "they move house")
        assert "already" in relay.command("destinations", "disable", "app")
        assert "disabled: they move house" in relay.command("destinations", "list")
        with closing(opened(tmp_path)) as inbox:
            keep(inbox, message(1, 100))
        until(lambda: relay.owed() == 1, "never planned")
        assert len(app.requests) == len(kept)
        (status,) = map(json.loads, relay.command("destinations", "list", "--json").splitlines())
        assert (status["name"], status["disabled"], status["backlog"]) == ("app", "they move house", 1)
        assert relay.metric("whatsapp_webhook_relay_destination_disabled", destination="app") == 1
        assert relay.metric("whatsapp_webhook_relay_backlog_events", destination="app") == 1
        assert "app is enabled." in relay.command("destinations", "enable", "app")
        until(lambda: len(app.requests) == len(kept) + 1, "nothing came")
        assert "there are: app" in relay.command("destinations", "enable", "nobody", ok=False)


def test_a_replay(tmp_path: Path, kept: list[Event], app: Destination) -> None:
    """Counts first where it is asked to; the same id, marked; by id, type, person, time and destination."""
    with Relay(tmp_path) as relay:
        assert "app: 6 events would be" in relay.command("events", "replay", "--since", "1h", "--dry-run")
        assert "app: 2 events would be" in relay.command(
            "events", "replay", "--subject", kept[0].subject or "", "--dry-run"
        )
        assert "Nothing is chosen" in relay.command("events", "replay", "--type", "com.whatsapp.call.*", "--dry-run")
        assert len(app.requests) == 6
        assert "app: 1 events are" in relay.command("events", "replay", kept[3].id, "--destination", "app")
        until(lambda: len(app.requests) == 7, "nothing came")
        assert app.requests[6].headers["ce-id"] == kept[3].id
        assert app.requests[6].headers["ce-replay"] == "true"
        assert not any("ce-replay" in request.headers for request in app.requests[:6])
        assert app.requests[6].body == kept[3].data
    assert "there is no 'other'; there are: app" in relay.command(
        "events", "replay", "1", "--destination", "other", ok=False
    )
    assert "Say which" in relay.command("events", "replay", ok=False)
    assert "not both" in relay.command("events", "replay", "1", "--since", "1h", ok=False)
    assert "There is no event '99'" in relay.command("events", "replay", "99", ok=False)


def test_dead_letters(tmp_path: Path, kept: list[Event], app: Destination) -> None:
    """Are listed with why and how often, and delivered once more."""
    store = SqliteDeliveryDatabase(tmp_path / "relay.db")
    work = SqliteDeliveries(store)
    with closing(opened(tmp_path)) as inbox:
        (lost,) = keep(inbox, message(1, 100))
    assert work.plan("app", 6, 7, [Delivery(7, lost.partitionkey, lost.received_at)], now=lost.received_at)
    (claim,) = work.claim("app", 1, QueueKind.HEALTHY, now=lost.received_at, lease=1000)
    bad = Attempt(lost.received_at, 0.1, 500, "5xx")
    work.settle([Settlement(claim, bad, Ruling(Verdict.DEAD_LETTER, reason="expired"))])
    store.close()
    relay = Relay(tmp_path)
    told = relay.command("events", "dead-letters")
    for word in ("app", "7", "com.whatsapp.message.text", "expired", "1"):
        assert word in told
    assert json.loads(relay.command("events", "show", "7"))["deliveries"][0]["state"] == "dead: expired"
    assert "app: 1 events would be" in relay.command("events", "replay", "--dead-letters", "--dry-run")
    assert "app: 1 events are" in relay.command("events", "replay", "--dead-letters")
    assert "No dead letters" in relay.command("events", "dead-letters")
    with relay:
        until(lambda: len(app.requests) == len(kept) + 1, "nothing came")


def test_a_person_is_forgotten(tmp_path: Path, kept: list[Event], app: Destination) -> None:
    """While the server runs: nothing of theirs is left in the files; a repeat is still told; the rest is there."""
    person = kept[0].subject or ""
    theirs = [event for event in kept if event.subject == person]
    notification = catalogue.notification("message text")
    with Server(tmp_path, WEBHOOK_DESTINATIONS=str(tmp_path / "destinations.yaml")) as server, Relay(tmp_path) as relay:
        app.behave = saying(BROKEN)
        with closing(SqliteLog(tmp_path / "inbox.db")) as log:
            wamids = [event.id.split(":")[1] for event in theirs]
            assert all(log.find(event.id) for event in theirs)
        assert "Would erase 2 events." in relay.command("events", "erase", "--subject", person, "--dry-run")
        said = relay.command("events", "erase", "--subject", f"+{person}", "--yes")
        assert "2 events are erased" in said
        assert "backups" in said
        assert "There is no event" in relay.command("events", "erase", "--subject", person, "--yes")
        assert server.notify(theirs[0].data).status == 200
        assert server.metric("whatsapp_webhook_events_total", outcome="duplicate") == 1
        assert server.notify(notification).status == 200
        assert len(server.kept()) == 4 + 1
    for file in tmp_path.glob("*.db*"):
        content = file.read_bytes()
        for secret in (person, *wamids):
            assert secret.encode() not in content, f"{secret} in {file.name}"


def test_what_is_not_owned_up_to_is_asked(tmp_path: Path, kept: list[Event]) -> None:
    """Without --yes nothing is erased before somebody says so."""
    relay = Relay(tmp_path)
    assert "Aborted" in relay.command("events", "erase", "--subject", kept[0].subject or "", ok=False)
    assert len(relay.command("events", "list", "--json").splitlines()) == 6


def test_it_stops_in_time_and_nothing_is_left_behind(tmp_path: Path) -> None:
    """With a destination that hangs: within seconds, exit code 0, and the next relay tries at once."""
    with closing(opened(tmp_path)) as inbox, destination(saying(after=30)) as app:
        keep(inbox, message(1, 1))
        write(tmp_path, {"url": f"http://127.0.0.1:{app.port}/", "timeout": 30})
        relay = Relay(tmp_path)
        relay.start()
        until(lambda: app.requests, "nothing came")
        assert relay.process is not None
        relay.process.send_signal(signal.SIGTERM)
        assert relay.process.wait(9) == 0
        app.behave = saying()
        with relay:
            until(lambda: relay.owed() == 0, "not tried again", 8)


def test_the_trace_goes_on(tmp_path: Path, app: Destination) -> None:
    """The try carries the trace of the request that brought the event."""
    collector = free_port()
    environ = {"OTEL_EXPORTER_OTLP_ENDPOINT": f"http://127.0.0.1:{collector}"}
    write(tmp_path, {"url": f"http://127.0.0.1:{app.port}/"})
    with Server(tmp_path, **environ) as server, Relay(tmp_path, **environ):
        server.notify(catalogue.notification("message text"))
        until(lambda: app.requests, "nothing came")
        (event,) = server.kept()
    sent = app.requests[0].headers["traceparent"]
    assert event.traceparent is not None
    assert sent.split("-")[1] == event.traceparent.split("-")[1]
    assert sent.split("-")[2] != event.traceparent.split("-")[2]
    assert app.requests[0].headers["ce-traceparent"] == event.traceparent


def _purged(directory: Path) -> None:
    """Purge the inbox as a receiver does after the retention, with all that it must not purge."""
    url = inbox_url(f"sqlite://{directory}/inbox.db")
    with closing(SqliteInbox(url.path, Terms(1, 1, low_watermark=low_watermark.of(url)))) as inbox:
        while inbox.purge(int(time.time() * 1000)):
            pass


def _dead_letter(directory: Path, number: int) -> Event:
    """Store an event, and have its delivery be given up by a relay that runs for a moment."""
    with closing(opened(directory)) as inbox:
        (lost,) = keep(inbox, message(1, number))
    store = SqliteDeliveryDatabase(directory / "relay.db")
    work = SqliteDeliveries(store)
    ((position, _),) = [each for each in _events(directory) if each[1].id == lost.id]
    assert work.plan("app", position - 1, position, [Delivery(position, lost.partitionkey, lost.received_at)], now=1)
    (claim,) = work.claim("app", 1, QueueKind.HEALTHY, now=lost.received_at, lease=1000)
    bad = Attempt(lost.received_at, 0.1, 500, "5xx")
    work.settle([Settlement(claim, bad, Ruling(Verdict.DEAD_LETTER, reason="expired"))])
    store.close()
    return lost


def _events(directory: Path) -> list[Record]:
    with closing(SqliteLog(directory / "inbox.db")) as log:
        return list(log.read(0, 1000))


def _standings(directory: Path) -> Sequence[DestinationStatus]:
    store = SqliteDeliveryDatabase(directory / "relay.db")
    try:
        return SqliteDeliveryAdmin(store).statuses()
    finally:
        store.close()


def _saved(directory: Path, *positions: int) -> set[int]:
    store = SqliteDeliveryDatabase(directory / "relay.db")
    try:
        return set(SqliteDeliveryAdmin(store).saved(positions))
    finally:
        store.close()


def test_a_dead_letter_outlives_the_retention(tmp_path: Path, kept: list[Event], app: Destination) -> None:
    """Its event is saved beside it, shown and delivered once more, though the inbox holds it no longer."""
    lost = _dead_letter(tmp_path, 100)
    _purged(tmp_path)
    assert [event.id for _, event in _events(tmp_path)] == [lost.id], "kept until it is saved"
    relay = Relay(tmp_path)
    with relay:
        until(lambda: _saved(tmp_path, 7) == {7}, "not saved")
    _purged(tmp_path)
    assert _events(tmp_path) == []
    assert "com.whatsapp.message.text" in relay.command("events", "dead-letters")
    assert json.loads(relay.command("events", "show", "7"))["id"] == lost.id
    assert "app: 1 events are" in relay.command("events", "replay", "--dead-letters")
    with relay:
        until(lambda: len(app.requests) == len(kept) + 1, "nothing came")
    assert app.requests[-1].body == lost.data
    assert app.requests[-1].headers["ce-id"] == lost.id


def test_a_dead_letter_whose_event_is_gone_is_said(tmp_path: Path, kept: list[Event]) -> None:
    """By `show` and by `replay`: no promise that can't be kept."""
    assert kept
    _dead_letter(tmp_path, 100)
    store = SqliteDeliveryDatabase(tmp_path / "relay.db")
    SqliteDeliveries(store).save([7], [], now=1, max_bytes=1)
    store.close()
    _purged(tmp_path)
    relay = Relay(tmp_path)
    assert "no longer stored" in relay.command("events", "dead-letters")
    assert "it cannot be replayed" in relay.command("events", "show", "7", ok=False)
    assert "Nothing is chosen" in relay.command("events", "replay", "--dead-letters")


def test_a_person_is_erased_from_dead_letters_too(tmp_path: Path, kept: list[Event]) -> None:
    """Also if the inbox itself holds nothing of them any more."""
    assert kept
    lost = _dead_letter(tmp_path, 100)
    with Relay(tmp_path) as relay:
        until(lambda: _saved(tmp_path, 7) == {7}, "not saved")
    _purged(tmp_path)
    assert lost.subject
    assert "1 events are erased" in relay.command("events", "erase", "--subject", lost.subject, "--yes")
    for file in tmp_path.glob("*.db*"):
        assert lost.subject.encode() not in file.read_bytes(), file.name


def test_the_state_of_a_relay_that_was_removed(tmp_path: Path, kept: list[Event]) -> None:
    """Is shown and dropped on request, never while a relay runs."""
    assert kept
    _dead_letter(tmp_path, 100)
    relay = Relay(tmp_path)
    assert "stop it, wait 150 seconds" in relay.command("destinations", "drop-state", "--yes", ok=False)
    store = SqliteDeliveryDatabase(tmp_path / "relay.db")
    with store.transaction() as db:
        db.execute("UPDATE heartbeat SET seen = 1")
    store.close()
    told = "1 destinations, 0 undelivered events and 1 dead letters"
    assert f"Would drop: {told}." in relay.command("destinations", "drop-state", "--dry-run")
    assert "Aborted" in relay.command("destinations", "drop-state", ok=False)
    assert f"Dropped: {told}." in relay.command("destinations", "drop-state", "--yes")
    assert "No destinations yet" in relay.command("destinations", "list")


def test_the_receiver_keeps_what_the_relay_has_yet_to_deliver(tmp_path: Path) -> None:
    """Though nothing in its own environment says that there is a relay; and its metric says when one was there."""
    with (
        destination(saying(BROKEN)) as app,
        Server(tmp_path, WEBHOOK_RETENTION="1s", WEBHOOK_BODY_RETENTION="1s") as server,
    ):
        assert "WEBHOOK_DESTINATIONS" not in server.environ
        write(tmp_path, {"url": f"http://127.0.0.1:{app.port}/"})
        with Relay(tmp_path) as relay:
            body = catalogue.notification("message text")
            assert server.notify(body).status == 200
            until(lambda: relay.owed() == 1, "not read")
            time.sleep(4)
            assert len(server.kept()) == 1
            app.behave = saying()
            until(lambda: relay.owed() == 0, "not delivered", patience=40)
            until(lambda: server.kept() == [], "not purged")
            seen = "whatsapp_webhook_relay_heartbeat_timestamp_seconds"
            until(lambda: time.time() - server.metric(seen) < 120, "the metric does not tell", patience=40)


@pytest.mark.parametrize(
    ("types", "comes"), [([], False), (["com.whatsapp.*"], False), (["com.whatsapp.unrecognized"], True)]
)
def test_what_is_no_notification_is_not_delivered_as_one(tmp_path: Path, types: list[str], comes: bool) -> None:  # noqa: FBT001
    """An application of Meta's format gets it only if its destination asks for it by name."""
    with closing(opened(tmp_path)) as inbox, destination() as app:
        keep(inbox, b'["not a notification"]', message(1, 1))
        write(tmp_path, {"url": f"http://127.0.0.1:{app.port}/", "format": "meta", "types": types})
        with Relay(tmp_path) as relay:
            until(
                lambda: relay.owed() == 0 and {each.name: each.position for each in _standings(tmp_path)} == {"app": 2},
                "?",
            )
        assert (b'["not a notification"]' in app.bodies()) is comes
