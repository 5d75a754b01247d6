"""Deliveries are broken in five ways: what is logged, listed and measured, and how long the repair takes.

Each test is what somebody on call does: look, repair, `destinations retry`, look again.
"""

import json
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from service.events import Event
from tests.support.destination import OK, Destination, Request, destination, saying
from tests.support.engines import Servers
from tests.support.relaying import Relay, keep, message, messages, opened, write
from tests.support.server import free_port, until

UNAUTHORIZED = (
    b"HTTP/1.1 401 Unauthorized\r\nContent-Type: application/json\r\nX-Request-Id: r-7\r\nContent-Length: 22\r\n\r\n"
    b'{"error":"bad secret"}'
)
REJECTED = OK.replace(b"200 OK", b"422 X")
REPAIRED_WITHIN_SECONDS = 10.0
KNOWN_WITHIN_SECONDS = 2.0


@pytest.fixture
def app() -> Iterator[Destination]:
    with destination() as made:
        yield made


@pytest.fixture
def relay(tmp_path: Path) -> Iterator[Relay]:
    with closing(opened(tmp_path)):
        pass
    write(tmp_path)
    with Relay(tmp_path) as made:
        yield made


def store(relay: Relay, *bodies: bytes) -> list[Event]:
    with closing(opened(relay.directory)) as inbox:
        return keep(inbox, *bodies)


def listed(relay: Relay) -> Mapping[str, str]:
    """Return the row of `destinations list`, by column."""
    header, *rows = relay.command("destinations", "list", "--wide").splitlines()
    if not rows:
        return dict.fromkeys(COLUMNS, "")
    row = rows[0]
    starts = [header.index(name) for name in COLUMNS]
    cells = [row[start:end].strip() for start, end in zip(starts, [*starts[1:], len(row)], strict=True)]
    return dict(zip(COLUMNS, cells, strict=True))


COLUMNS = ("name", "state", "backlog", "unread max", "oldest", "received", "status", "next", "dead letters")


def repaired(relay: Relay, *command: str) -> None:
    """Run a command, and require that nothing is pending soon."""
    started = time.monotonic()
    relay.command("destinations", *command)
    until(lambda: relay.backlog() == 0, lambda: str(listed(relay)), patience=REPAIRED_WITHIN_SECONDS)
    assert time.monotonic() - started < REPAIRED_WITHIN_SECONDS


def test_the_consumer_is_down(relay: Relay) -> None:
    """The circuit breaker opens; after the repair everything leaves at once, in order."""
    events = store(relay, *messages(60, 20))
    port = free_port()
    write(relay.directory, {"url": f"http://127.0.0.1:{port}/hook"})
    until(lambda: relay.backlog() == 60, "not planned")
    until(lambda: listed(relay)["state"] == "failing", lambda: str(listed(relay)))
    row = listed(relay)
    assert (row["backlog"], row["oldest"], row["status"]) == ("60", "1", "none")
    assert row["next"] == "now" or row["next"].startswith("in ")
    assert any(line["event"] == "circuit breaker changed state" for line in relay.log_lines())
    position = relay.command("events", "list", "--pending", "app").splitlines()[1].split()[0]
    shown = json.loads(relay.command("events", "show", position))
    assert shown["deliveries"][0]["state"] == "waiting"
    pending = relay.command("events", "list", "--pending", "app", "--json").splitlines()
    assert [json.loads(line)["id"] for line in pending] == [event.id for event in events]
    back = Destination(saying(), port=port)
    repaired(relay, "retry", "app")
    assert sorted(back.bodies()) == sorted(event.data for event in events)
    until(lambda: listed(relay)["state"] == "ok", lambda: str(listed(relay)), patience=KNOWN_WITHIN_SECONDS)
    back.close()


def test_a_wrong_secret(relay: Relay, app: Destination) -> None:
    """One log line with status and remedy, one attempt at a time, and evidence of what the application answered."""
    app.behave = saying(UNAUTHORIZED)
    store(relay, *messages(60, 20))
    write(relay.directory, {"url": f"http://127.0.0.1:{app.port}/hook"})
    started = time.monotonic()
    until(lambda: listed(relay)["state"] == "misconfigured", lambda: str(listed(relay)))
    assert time.monotonic() - started < 5
    assert listed(relay)["status"] == "401"
    gauge = "whatsapp_webhook_relay_destination_misconfigured"
    assert relay.metric(gauge, destination="app", status="401") == 1
    time.sleep(2)
    assert len(app.requests) < 40, "it is attempted now and then"
    (warning,) = [line for line in relay.log_lines() if line["event"] == "destination is misconfigured"]
    assert (warning["destination"], warning["status"]) == ("app", 401)
    assert warning["url"] == f"http://127.0.0.1:{app.port}"
    assert "check the signing secret" in warning["remedy"]
    shown = json.loads(relay.command("events", "show", app.requests[0].headers["ce-id"]))
    attempt = shown["deliveries"][0]["attempts"][0]
    assert (attempt["status"], attempt["reason"]) == (401, "responded with 401 Unauthorized")
    assert attempt["text"] == '{"error":"bad secret"}'
    assert attempt["headers"]["X-Request-Id"] == "r-7"
    assert "bad secret" not in relay.log_file.read_text()
    assert b"bad secret" not in relay.admin("/metrics").body
    app.behave = saying()
    repaired(relay, "retry", "app")
    assert "No dead letters." in relay.command("events", "dead-letters")
    until(lambda: relay.metric(gauge, destination="app", status="401") == 0, "still told")


def started(relay: Relay) -> int:
    """Return how often the destination was started: once more after each change of the file."""
    return sum(line["event"] == "destination started" for line in relay.log_lines())


def rejecting(event: Event) -> Callable[[Request, Any], None]:
    return lambda request, client: client.sendall(REJECTED if request.body == event.data else OK)


def test_one_failing_message(relay: Relay, app: Destination) -> None:
    """It and those behind it wait; once it is dropped the others leave, and it can be replayed."""
    bad, *others = store(relay, message(1, 1), message(1, 2), message(1, 3), message(2, 4))
    app.behave = rejecting(bad)
    write(relay.directory, {"url": f"http://127.0.0.1:{app.port}/hook"})
    until(lambda: relay.backlog() == 3, "the other person's message did not arrive")
    row = listed(relay)
    assert (row["state"], row["backlog"], row["oldest"]) == ("ok", "3", "1")
    pending = relay.command("events", "list", "--pending", "app").splitlines()
    assert [line.split()[-2:] for line in pending[2:4]] == [["after", "1"]] * 2
    assert "1: a dead letter of app now" in relay.command("events", "drop", "1", "--destination", "app")
    until(lambda: relay.backlog() == 0, "what waited for it did not arrive", patience=REPAIRED_WITHIN_SECONDS)
    assert [body for body in app.bodies() if body in {each.data for each in others[:2]}] == [
        each.data for each in others[:2]
    ]
    group = relay.command("events", "dead-letters").splitlines()[1].split()
    assert (group[:4], group[5:]) == (["app", "dropped", "422", "1"], ["1", "com.whatsapp.message.text"])
    assert "1: not pending for app: dead: dropped." in relay.command(
        "events", "drop", "1", "--destination", "app", ok=False
    )
    app.behave = saying()
    assert "app: 1 event will" in relay.command(
        "events", "replay", "--dead-letters", "--reason", "dropped", "--status", "422"
    )
    until(lambda: bad.data == app.bodies()[-1], "not replayed")


def test_a_delivery_that_is_dropped_while_its_attempt_runs(relay: Relay, app: Destination) -> None:
    """The command waits for the end of the attempt; if that delivered it, it says so."""
    app.behave = saying(after=1.0)
    store(relay, message(1, 1))
    write(relay.directory, {"url": f"http://127.0.0.1:{app.port}/hook"})
    until(lambda: app.requests, "nothing arrived")
    assert "running" in relay.command("events", "list", "--pending", "app")
    assert "1: not pending for app: delivered." in relay.command(
        "events", "drop", "1", "--destination", "app", ok=False
    )
    assert "No dead letters." in relay.command("events", "dead-letters")


def test_a_filter_with_a_typo(relay: Relay, app: Destination) -> None:
    """`events show` says which option excludes the event; a changed filter removes nothing by itself."""
    url = {"url": f"http://127.0.0.1:{app.port}/hook"}
    write(relay.directory, {**url, "types": ["com.whatsapp.mesage.*"]})
    until(lambda: "app" in relay.command("destinations", "list"), "not read")
    store(relay, message(1, 1))
    until(lambda: json.loads(relay.command("destinations", "list", "--json"))["position"] == 1, "not read")
    (delivery,) = json.loads(relay.command("events", "show", "1"))["deliveries"]
    assert delivery["state"] == "not delivered: the destination's option `types` excludes it"
    assert relay.command("check", ok=True).count("mesage") >= 1, "a warning: no known type matches"
    app.behave = saying(OK.replace(b"200 OK", b"503 X"))
    write(relay.directory, url)
    until(lambda: started(relay) == 2, "the change was not seen")
    store(relay, *(message(number, number) for number in range(2, 5)))
    until(lambda: relay.backlog() == 3, "not planned")
    write(relay.directory, {**url, "types": ["com.whatsapp.status"]})
    until(lambda: started(relay) == 3, "the change was not seen")
    assert relay.backlog() == 3
    assert "the filter excludes 3 pending" in relay.command("destinations", "apply-filter", "app", "--dry-run")
    assert relay.backlog() == 3
    assert "3 pending deliveries are dead letters" in relay.command("destinations", "apply-filter", "app", "--yes")
    assert relay.backlog() == 0
    assert relay.command("events", "dead-letters").splitlines()[1].split()[:4] == ["app", "filtered", "503", "3"]


def test_a_destination_that_was_disabled(relay: Relay, app: Destination) -> None:
    """`enable` delivers what waits at once, also if it waits for a retry."""
    app.behave = saying(OK.replace(b"200 OK", b"410 X"))
    store(relay, *messages(20, 20))
    write(relay.directory, {"url": f"http://127.0.0.1:{app.port}/hook"})
    until(lambda: listed(relay)["state"].startswith("disabled: responded with status 410"), lambda: str(listed(relay)))
    assert "Run: whatsapp-webhook destinations enable app" in relay.command("destinations", "retry", "app", ok=False)
    app.behave = saying()
    repaired(relay, "enable", "app")
    assert len(set(app.bodies())) == 20


def test_the_backlog_is_told_before_it_is_planned(relay: Relay) -> None:
    """Of a destination that is down: planned deliveries exactly, the rest as an upper bound."""
    with closing(opened(relay.directory)) as inbox:
        for start in range(0, 20_000, 2000):
            keep(inbox, *(message(number % 50, number) for number in range(start, start + 2000)))
    write(relay.directory, {"url": f"http://127.0.0.1:{free_port()}/hook"})
    until(lambda: "app" in relay.command("destinations", "list"), "not read")
    time.sleep(KNOWN_WITHIN_SECONDS)
    status = json.loads(relay.command("destinations", "list", "--json"))
    assert status["backlog"] + status["unread_at_most"] == 20_000
    row = listed(relay)
    assert int(row["backlog"]) + int(row["unread max"]) == 20_000
    assert int(row["unread max"]) > 10_000
    planned = relay.metric("whatsapp_webhook_relay_backlog_events", destination="app")
    unread = relay.metric("whatsapp_webhook_relay_unread_positions", destination="app")
    assert 19_000 <= planned + unread <= 21_000, "at most a second old"


@pytest.mark.needs("postgresql")
def test_every_relay_obeys_retry_now(tmp_path: Path, servers: Servers, app: Destination) -> None:
    """Both relays have found the destination misconfigured, and wait; both report, and deliver after the repair."""
    url = servers.postgresql().new_database()
    app.behave = saying(UNAUTHORIZED)
    with closing(opened(tmp_path, url)) as inbox:
        keep(inbox, *messages(100, 50))
    write(tmp_path, {"url": f"http://127.0.0.1:{app.port}/hook"})
    with Relay(tmp_path, WEBHOOK_INBOX=url) as one, Relay(tmp_path, WEBHOOK_INBOX=url) as other:
        gauge = "whatsapp_webhook_relay_destination_misconfigured"
        for each in (one, other):
            until(lambda each=each: each.metric(gauge, destination="app") == 1, "not found")

        def healths() -> list[str]:
            status = json.loads(one.command("destinations", "list", "--json"))
            return [report["health"] for report in status["reports"]]

        until(lambda: healths() == ["misconfigured"] * 2, lambda: str(healths()), patience=KNOWN_WITHIN_SECONDS)
        app.behave = saying(after=0.05)
        started = time.monotonic()
        one.command("destinations", "retry", "app")
        until(lambda: one.backlog() == 0, lambda: str(listed(one)), patience=REPAIRED_WITHIN_SECONDS)
        assert time.monotonic() - started < REPAIRED_WITHIN_SECONDS
        attempts = "whatsapp_webhook_relay_attempts_total"
        delivered = [each.metric(attempts, destination="app", outcome="delivered") for each in (one, other)]
        assert min(delivered) > 5, delivered
