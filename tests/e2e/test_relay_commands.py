"""The relay and its commands, as an operator runs them."""

import json
import signal
import time
from collections.abc import Iterator, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

import psycopg
import pytest

from service.config import inbox_url
from service.events import Event
from service.meta import catalogue
from service.storage import engines, low_watermark
from service.storage.deliveries import Attempt, Delivery, DestinationStatus, QueueKind, Ruling, Settlement, Verdict
from service.storage.protocols import Record, Terms
from service.storage.sqlite import SqliteInbox, SqliteLog
from service.storage.sqlite.delivery_admin import SqliteDeliveryAdmin
from service.storage.sqlite.delivery_database import SqliteDeliveryDatabase
from service.storage.sqlite.delivery_queue import SqliteDeliveries
from tests.support.destination import OK, Destination, destination, saying
from tests.support.engines import Servers
from tests.support.relaying import Relay, keep, message, messages, opened, write
from tests.support.server import Server, free_port, until

BROKEN = OK.replace(b"200 OK", b"500 X")


@pytest.fixture
def app() -> Iterator[Destination]:
    with destination() as made:
        yield made


@pytest.fixture
def stored(tmp_path: Path, app: Destination) -> list[Event]:
    """Six messages of three people, all of them delivered."""
    write(tmp_path, {"url": f"http://127.0.0.1:{app.port}/"})
    with closing(opened(tmp_path)) as inbox:
        events = keep(inbox, *messages(6, 3))
    with Relay(tmp_path) as relay:
        until(lambda: relay.backlog() == 0 and len(app.requests) == 6, "not all came")
    return events


def test_a_missing_setting_or_state_is_reported(tmp_path: Path) -> None:
    """With what to do, and without a traceback."""
    relay = Relay(tmp_path)
    relay.environ["WEBHOOK_DESTINATIONS"] = ""
    assert "WEBHOOK_DESTINATIONS is not set" in relay.command("relay", ok=False)
    relay.environ["WEBHOOK_DESTINATIONS"] = str(relay.file)
    relay.environ["WEBHOOK_INBOX"] = "memory://?durability=weak"
    assert "can't read an inbox in memory" in relay.command("relay", ok=False)
    relay = Relay(tmp_path)
    assert "no relay has run" in relay.command("destinations", "list", ok=False)
    assert "no relay has run" in relay.command("events", "dead-letters", "--inbox", f"sqlite://{relay.inbox}", ok=False)
    (tmp_path / "relay.db").mkdir()
    assert "relay.db is not a file" in relay.command("relay", ok=False)


def test_a_port_in_use_is_reported(tmp_path: Path) -> None:
    """As by `serve`."""
    with closing(opened(tmp_path)):
        pass
    write(tmp_path)
    with Relay(tmp_path) as one:
        other = Relay(tmp_path, WEBHOOK_RELAY_BIND=one.environ["WEBHOOK_RELAY_BIND"])
        said = other.command("relay", ok=False)
    assert "WEBHOOK_RELAY_BIND" in said
    assert "Traceback" not in said


def test_check_reports_every_problem_of_the_destinations_file(tmp_path: Path) -> None:
    """In one run."""
    relay = Relay(tmp_path)
    write(tmp_path, {"url": "ftp://x", "nme": 1}, {"name": "other", "url": "https://a.b", "format": "xml"})
    said = relay.command("check", ok=False)
    for problem in ("must be a URL", "unknown key nme: did you mean name", "'meta' or 'cloudevents'"):
        assert problem in said
    write(tmp_path, {"url": "https://app.example.com"})
    (tmp_path / "cloudevents-secret").write_text("whsec_!!\n")
    assert "must have base64 after whsec_ (line 1)" in relay.command("check", ok=False)


def test_the_delivery_history_of_an_event(tmp_path: Path, stored: list[Event]) -> None:
    """By position and by id: each attempt with its time, duration and status."""
    relay = Relay(tmp_path)
    for which in ("2", stored[1].id):
        told = json.loads(relay.command("events", "show", which))
        (delivery,) = told["deliveries"]
        assert (delivery["destination"], delivery["state"]) == ("app", "delivered")
        (tried,) = delivery["attempts"]
        assert (tried["status"], tried["outcome"]) == (200, "delivered")
        assert 0 <= tried["seconds"] < 5
        assert tried["at"].endswith("Z")


def test_a_destination_is_disabled_and_enabled(tmp_path: Path, stored: list[Event], app: Destination) -> None:
    """While the relay runs; `destinations list` shows the state."""
    with Relay(tmp_path) as relay:
        assert "app is disabled." in relay.command("destinations", "disable", "app", "--reason", "they move house")
        assert "already" in relay.command("destinations", "disable", "app")
        assert "disabled: they move house" in relay.command("destinations", "list")
        with closing(opened(tmp_path)) as inbox:
            keep(inbox, message(1, 100))
        until(lambda: relay.backlog() == 1, "never planned")
        assert len(app.requests) == len(stored)
        (status,) = map(json.loads, relay.command("destinations", "list", "--json").splitlines())
        assert (status["name"], status["disabled"], status["backlog"]) == ("app", "they move house", 1)
        assert relay.metric("whatsapp_webhook_relay_destination_disabled", destination="app") == 1
        assert relay.metric("whatsapp_webhook_relay_backlog_events", destination="app") == 1
        assert "app is enabled." in relay.command("destinations", "enable", "app")
        until(lambda: len(app.requests) == len(stored) + 1, "nothing came")
        assert "Destinations: app." in relay.command("destinations", "enable", "nobody", ok=False)


def test_a_replay(tmp_path: Path, stored: list[Event], app: Destination) -> None:
    """Events keep their id and are marked; options select them by type, person, time and destination."""
    with Relay(tmp_path) as relay:
        assert "app: 6 events would be" in relay.command("events", "replay", "--since", "1h", "--dry-run")
        assert "app: 2 events would be" in relay.command(
            "events", "replay", "--subject", stored[0].subject or "", "--dry-run"
        )
        assert "No event matches" in relay.command("events", "replay", "--type", "com.whatsapp.call.*", "--dry-run")
        assert len(app.requests) == 6
        assert "app: 1 event will be" in relay.command("events", "replay", stored[3].id, "--destination", "app")
        until(lambda: len(app.requests) == 7, "nothing came")
        assert app.requests[6].headers["ce-id"] == stored[3].id
        assert app.requests[6].headers["ce-replay"] == "true"
        assert not any("ce-replay" in request.headers for request in app.requests[:6])
        assert app.requests[6].body == stored[3].data
    assert "There is no destination 'other'. Destinations: app." in relay.command(
        "events", "replay", "1", "--destination", "other", ok=False
    )
    assert "Which events?" in relay.command("events", "replay", ok=False)
    assert "not both" in relay.command("events", "replay", "1", "--since", "1h", ok=False)
    assert "There is no event '99'" in relay.command("events", "replay", "99", ok=False)


def test_dead_letters(tmp_path: Path, stored: list[Event], app: Destination) -> None:
    """They are listed with reason and attempts, and replayed."""
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
    assert "app: 1 event would be" in relay.command("events", "replay", "--dead-letters", "--dry-run")
    assert "app: 1 event will be" in relay.command("events", "replay", "--dead-letters")
    assert "No dead letters" in relay.command("events", "dead-letters")
    assert "No dead letters." in relay.command("events", "replay", "--dead-letters")
    with relay:
        until(lambda: len(app.requests) == len(stored) + 1, "nothing came")


def test_a_person_is_erased(tmp_path: Path, stored: list[Event], app: Destination) -> None:
    """While the server runs: none of their data is left in the files, and a duplicate is still recognized."""
    person = stored[0].subject or ""
    theirs = [event for event in stored if event.subject == person]
    notification = catalogue.notification("message text")
    with Server(tmp_path, WEBHOOK_DESTINATIONS=str(tmp_path / "destinations.yaml")) as server, Relay(tmp_path) as relay:
        app.behave = saying(BROKEN)
        with closing(SqliteLog(tmp_path / "inbox.db")) as log:
            wamids = [event.id.split(":")[1] for event in theirs]
            assert all(log.find(event.id) for event in theirs)
        assert "Would erase 2 events." in relay.command("events", "erase", "--subject", person, "--dry-run")
        said = relay.command("events", "erase", "--subject", f"+{person}", "--yes")
        assert "Erased 2 events." in said
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


@pytest.mark.parametrize("engine", ["sqlite", pytest.param("postgresql", marks=pytest.mark.needs("postgresql"))])
def test_a_person_is_erased_by_any_identifier(tmp_path: Path, engine: str, servers: Servers) -> None:
    """Over a change of number and user id, in every file or table; what another owner of the number wrote stays."""
    url = servers.postgresql().new_database() if engine == "postgresql" else f"sqlite://{tmp_path}/inbox.db"
    ann, bob, old, new = "US.1111111111", "US.2222222222", "16505551111", "16505552222"
    changed = {"type": "user_changed_number", "wa_id": new, "user_id": f"{ann}9", "previous_user_id": ann}
    sent: list[dict[str, Any]] = [
        {"from": old},
        {"from": old, "from_user_id": ann},
        {"from_user_id": ann, "group_id": "g"},
        {"from": old, "type": "system", "system": changed},
        {"from": new, "from_user_id": f"{ann}9"},
        {"from": old, "from_user_id": bob},
        {"from": old},
    ]
    with closing(opened(tmp_path, url)) as inbox:
        keep(inbox, *(of_message({"id": f"wamid.{number}", **each}) for number, each in enumerate(sent)))
    write(tmp_path, {"url": "http://127.0.0.1:9/"})
    with closing(engines.open_log(inbox_url(url))) as log:
        first = log.first()
    with Relay(tmp_path, WEBHOOK_INBOX=url) as relay:
        until(lambda: relay.backlog() == 7, "not planned")
        relay.stop()
        told = relay.command("events", "erase", "--subject", new, "--dry-run")
        intervals = f"{old}  from the beginning to position {first + 3}", f"{new}  from position {first + 3} until now"
        for words in (ann, f"{ann}9", *intervals):
            assert words in told
        assert "2 events of these numbers" in told
        assert "Would erase 5 events." in told
        assert len(relay.command("events", "list", "--json", "--subject", ann).splitlines()) == 5
        assert "Erased 5 events." in relay.command("events", "erase", "--subject", ann, "--yes")
        assert found_in(tmp_path, url, bob), "the search finds nothing at all"
        assert found_in(tmp_path, url, ann) == found_in(tmp_path, url, new) == []
        assert "Would erase 2 events." in relay.command("events", "erase", "--subject", bob, "--dry-run")
        done = relay.command("events", "erase", "--subject", bob, "--include-reassigned", "--yes")
        assert "Erased 2 events." in done
        assert found_in(tmp_path, url, bob) == found_in(tmp_path, url, old) == []


def found_in(directory: Path, url: str, secret: str) -> list[str]:
    """Return the files, and the tables of a PostgreSQL database, that contain a text."""
    found = [file.name for file in directory.glob("*.db*") if secret.encode() in file.read_bytes()]
    if url.startswith("postgresql"):
        with psycopg.connect(url) as db:
            tables = db.execute("SELECT tablename FROM pg_tables WHERE schemaname = 'whatsapp_webhook'").fetchall()
            for (table,) in tables:
                rows = db.execute(f"SELECT t::text FROM whatsapp_webhook.{table} AS t").fetchall()
                if any(secret in row or secret.encode().hex() in row for (row,) in rows):
                    found.append(table)
    return found


def of_message(members: dict[str, Any]) -> bytes:
    metadata = {"display_phone_number": catalogue.BUSINESS, "phone_number_id": catalogue.PHONE_NUMBER_ID}
    value = {"metadata": metadata, "messages": [{"type": "text", "timestamp": "1795000000", **members}]}
    entry = {"id": catalogue.ACCOUNT, "changes": [{"field": "messages", "value": value}]}
    return json.dumps({"object": "whatsapp_business_account", "entry": [entry]}).encode()


def test_erase_asks_for_confirmation(tmp_path: Path, stored: list[Event]) -> None:
    """Without --yes nothing is erased before it is confirmed."""
    relay = Relay(tmp_path)
    assert "Aborted" in relay.command("events", "erase", "--subject", stored[0].subject or "", ok=False)
    assert len(relay.command("events", "list", "--json").splitlines()) == 6


def test_the_relay_stops_in_time(tmp_path: Path) -> None:
    """With a destination that hangs: within seconds, exit status 0; the next relay retries immediately."""
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
            until(lambda: relay.backlog() == 0, "not tried again", 8)


def test_the_trace_is_continued(tmp_path: Path, app: Destination) -> None:
    """The attempt carries the trace of the request that brought the event."""
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


def _purge(directory: Path) -> None:
    """Purge the inbox as a receiver does after the retention, except for what the relay still needs."""
    url = inbox_url(f"sqlite://{directory}/inbox.db")
    with closing(SqliteInbox(url.path, Terms(1, 1, low_watermark=low_watermark.of(url)))) as inbox:
        while inbox.purge(int(time.time() * 1000)):
            pass


def _dead_letter(directory: Path, number: int) -> Event:
    """Store an event, and make its delivery a dead letter."""
    with closing(opened(directory)) as inbox:
        (lost,) = keep(inbox, message(1, number))
    store = SqliteDeliveryDatabase(directory / "relay.db")
    work = SqliteDeliveries(store)
    ((position, _),) = [each for each in _events(directory) if each[1].id == lost.id]
    with closing(SqliteLog(directory / "inbox.db")) as log:
        work.adopt(log.timelines())
    assert work.plan("app", position - 1, position, [Delivery(position, lost.partitionkey, lost.received_at)], now=1)
    (claim,) = work.claim("app", 1, QueueKind.HEALTHY, now=lost.received_at, lease=1000)
    bad = Attempt(lost.received_at, 0.1, 500, "5xx")
    work.settle([Settlement(claim, bad, Ruling(Verdict.DEAD_LETTER, reason="expired"))])
    store.close()
    return lost


def _events(directory: Path) -> list[Record]:
    with closing(SqliteLog(directory / "inbox.db")) as log:
        return list(log.read(0, 1000))


def _statuses(directory: Path) -> Sequence[DestinationStatus]:
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


def test_a_dead_letter_outlives_the_retention(tmp_path: Path, stored: list[Event], app: Destination) -> None:
    """Its event is saved with it, shown and replayed, though the inbox no longer has it."""
    lost = _dead_letter(tmp_path, 100)
    _purge(tmp_path)
    assert [event.id for _, event in _events(tmp_path)] == [lost.id], "purged before it was saved"
    relay = Relay(tmp_path)
    with relay:
        until(lambda: _saved(tmp_path, 7) == {7}, "not saved")
    _purge(tmp_path)
    assert _events(tmp_path) == []
    assert "com.whatsapp.message.text" in relay.command("events", "dead-letters")
    assert json.loads(relay.command("events", "show", "7"))["id"] == lost.id
    assert "app: 1 event will be" in relay.command("events", "replay", "--dead-letters")
    with relay:
        until(lambda: len(app.requests) == len(stored) + 1, "nothing came")
    assert app.requests[-1].body == lost.data
    assert app.requests[-1].headers["ce-id"] == lost.id


def test_a_dead_letter_without_its_event(tmp_path: Path, stored: list[Event]) -> None:
    """`show` and `replay` report that it cannot be replayed."""
    assert stored
    _dead_letter(tmp_path, 100)
    store = SqliteDeliveryDatabase(tmp_path / "relay.db")
    SqliteDeliveries(store).save([7], [], now=1, max_bytes=1)
    store.close()
    _purge(tmp_path)
    relay = Relay(tmp_path)
    assert "no longer stored" in relay.command("events", "dead-letters")
    assert "it cannot be replayed" in relay.command("events", "show", "7", ok=False)
    assert "No event matches" in relay.command("events", "replay", "--dead-letters")


def test_a_person_is_erased_from_dead_letters_too(tmp_path: Path, stored: list[Event]) -> None:
    """Even if the inbox itself has no event of them any more."""
    assert stored
    lost = _dead_letter(tmp_path, 100)
    with Relay(tmp_path) as relay:
        until(lambda: _saved(tmp_path, 7) == {7}, "not saved")
    _purge(tmp_path)
    assert lost.subject
    assert "Erased 1 event." in relay.command("events", "erase", "--subject", lost.subject, "--yes")
    for file in tmp_path.glob("*.db*"):
        assert lost.subject.encode() not in file.read_bytes(), file.name


def test_the_state_of_a_relay_that_was_removed(tmp_path: Path, stored: list[Event]) -> None:
    """It is shown and dropped on request, but not while a relay runs."""
    assert stored
    _dead_letter(tmp_path, 100)
    relay = Relay(tmp_path)
    assert "Stop it, wait 150 seconds" in relay.command("destinations", "drop-state", "--yes", ok=False)
    store = SqliteDeliveryDatabase(tmp_path / "relay.db")
    with store.transaction() as db:
        db.execute("UPDATE heartbeat SET seen = 1")
    store.close()
    told = "the state of 1 destinations, 0 pending deliveries, 1 dead letters"
    assert f"Would drop: {told}." in relay.command("destinations", "drop-state", "--dry-run")
    assert "Aborted" in relay.command("destinations", "drop-state", ok=False)
    assert f"Dropped: {told}." in relay.command("destinations", "drop-state", "--yes")
    assert "No destinations yet" in relay.command("destinations", "list")


def test_the_receiver_does_not_purge_pending_events(tmp_path: Path) -> None:
    """Although its own environment does not mention a relay. Its metric has the relay's last heartbeat."""
    with (
        destination(saying(BROKEN)) as app,
        Server(tmp_path, WEBHOOK_RETENTION="1s", WEBHOOK_BODY_RETENTION="1s") as server,
    ):
        assert "WEBHOOK_DESTINATIONS" not in server.environ
        write(tmp_path, {"url": f"http://127.0.0.1:{app.port}/"})
        with Relay(tmp_path) as relay:
            body = catalogue.notification("message text")
            assert server.notify(body).status == 200
            until(lambda: relay.backlog() == 1, "not read")
            time.sleep(4)
            assert len(server.kept()) == 1
            app.behave = saying()
            until(lambda: relay.backlog() == 0, "not delivered", patience=40)
            until(lambda: server.kept() == [], "not purged")
            seen = "whatsapp_webhook_relay_heartbeat_timestamp_seconds"
            until(lambda: time.time() - server.metric(seen) < 120, "the metric does not tell", patience=40)


@pytest.mark.parametrize(
    ("types", "comes"), [([], False), (["com.whatsapp.*"], False), (["com.whatsapp.unrecognized"], True)]
)
def test_unrecognized_bodies_are_delivered_on_request_only(tmp_path: Path, types: list[str], comes: bool) -> None:  # noqa: FBT001
    """A destination of format `meta` gets them only if its `types` name them."""
    with closing(opened(tmp_path)) as inbox, destination() as app:
        keep(inbox, b'["not a notification"]', message(1, 1))
        write(tmp_path, {"url": f"http://127.0.0.1:{app.port}/", "format": "meta", "types": types})
        with Relay(tmp_path) as relay:
            until(
                lambda: (
                    relay.backlog() == 0 and {each.name: each.position for each in _statuses(tmp_path)} == {"app": 2}
                ),
                "?",
            )
        assert (b'["not a notification"]' in app.bodies()) is comes
