"""The documentation's consumers of a Kafka topic and a NATS stream get each event of the real service once."""

import sys
from pathlib import Path

import pytest

from service.meta import catalogue
from tests.e2e.test_receiving import EXAMPLES, ROOT, running
from tests.support.engines import Servers, place
from tests.support.server import Server, until


@pytest.mark.parametrize("engine", [pytest.param(each, marks=pytest.mark.needs(each)) for each in ("kafka", "nats")])
def test_a_consumer_in_ten_lines(engine: str, tmp_path: Path, servers: Servers) -> None:
    """They get a batch, skip duplicates that the engine stores, and get new events while they listen."""
    url = place(engine, tmp_path, servers).text
    where, _, name = url.partition("?")[0].rpartition("/")
    program = [sys.executable, str(EXAMPLES / f"consume_{engine}.py"), where.removeprefix("kafka://"), name]
    with Server(tmp_path, WEBHOOK_INBOX=url) as server:
        batch, text = catalogue.batch(50), catalogue.notification("message text")
        for body in (batch, batch, text):
            assert server.notify(body).status == 200
        with running(program, tmp_path) as printed:
            until(lambda: len(printed.read_text().splitlines()) >= 51, printed.read_text)
            image = catalogue.notification("message image")
            assert server.notify(image).status == 200
            until(lambda: "com.whatsapp.message.image" in printed.read_text(), printed.read_text)
        lines = printed.read_text().splitlines()
        assert len(lines) == 52
        expected = {event.id: event.data.decode() for event in server.kept()}
        assert {line.split(" ", 2)[1]: line.split(" ", 2)[2] for line in lines} == expected


def test_the_documentation_shows_these_programs() -> None:
    """Each has about ten lines."""
    page = (ROOT / "docs" / "engines.md").read_text()
    for program in ("consume_kafka.py", "consume_nats.py"):
        text = (EXAMPLES / program).read_text()
        assert text.strip() in page
        assert len(text.splitlines()) <= 17


@pytest.mark.parametrize("engine", [pytest.param(each, marks=pytest.mark.needs(each)) for each in ("kafka", "nats")])
def test_commands_read_a_stream(engine: str, tmp_path: Path, servers: Servers) -> None:
    """`events list` and `events show` use its own positions; commands that need a log or a relay say so."""
    url = place(engine, tmp_path, servers).text
    with Server(tmp_path, WEBHOOK_INBOX=url) as server:
        for kind in ("message text", "message image", "status read"):
            assert server.notify(catalogue.notification(kind)).status == 200
    lines = [line.split() for line in server.run("events", "list", "--inbox", url).splitlines()[1:4]]
    assert sorted(line[2] for line in lines) == [
        "com.whatsapp.message.image",
        "com.whatsapp.message.text",
        "com.whatsapp.status.read",
    ]
    shown = server.run("events", "show", lines[0][0], "--inbox", url)
    assert lines[0][2] in shown
    assert "deliveries" not in shown
    assert len(server.run("events", "list", "--inbox", url, "--json").splitlines()) == 3
    kinds = server.run("events", "list", "--inbox", url, "--type", "com.whatsapp.message.*", "--since", "1h")
    assert "status.read" not in kinds
    assert "position" in server.run("events", "show", "nothing", "--inbox", url, ok=False)
    assert "There is no event" in server.run(
        "events", "show", {"kafka": "0:99"}.get(engine, "99"), "--inbox", url, ok=False
    )
    for command in (("events", "dead-letters"), ("events", "replay", "--dead-letters"), ("destinations", "list")):
        assert "There is no relay for" in server.run(*command, "--inbox", url, ok=False)
    assert "rase" in server.run("events", "erase", "--subject", "1", "--inbox", url, ok=False)
