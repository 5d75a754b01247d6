"""`events list --follow` beside a server that stores events."""

import json
import os
import queue
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Self

import pytest

from service.meta import catalogue
from tests.support.engines import Servers, place
from tests.support.server import Server

TIMEOUT_SECONDS = 20.0


class Follower:
    """`events list --follow` in a process; its lines can be waited for."""

    def __init__(self, url: str, *options: str) -> None:
        clean = {name: value for name, value in os.environ.items() if not name.startswith(("WEBHOOK_", "OTEL_"))}
        command = [sys.executable, "-m", "service", "events", "list", "--follow", "--inbox", url, *options]
        self.process = subprocess.Popen(command, env=clean, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        self._lines = queue.Queue[str]()
        assert self.process.stdout
        threading.Thread(target=self._read, args=(self.process.stdout,), daemon=True).start()

    def _read(self, stdout: IO[bytes]) -> None:
        for line in stdout:
            self._lines.put(line.decode())

    def line(self) -> str:
        """Wait for the next line."""
        return self._lines.get(timeout=TIMEOUT_SECONDS)

    def rest(self) -> list[str]:
        """Send Ctrl-C, and return the lines that were not yet waited for; fails unless it exits with status 0."""
        self.process.send_signal(signal.SIGINT)
        _, errors = self._exited()
        assert b"Traceback" not in errors
        assert self.process.returncode == 0, errors
        return list(self._lines.queue)

    def _exited(self) -> tuple[bytes, bytes]:
        assert self.process.stderr
        self.process.wait(TIMEOUT_SECONDS)
        return b"", self.process.stderr.read()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_raised: object) -> None:
        self.process.kill()
        self.process.wait()


@contextmanager
def served(engine: str, directory: Path, servers: Servers) -> Iterator[Server]:
    with Server(directory, WEBHOOK_INBOX=place(engine, directory, servers).text) as server:
        yield server


@pytest.mark.parametrize("engine", ["sqlite", pytest.param("postgresql", marks=pytest.mark.needs("postgresql"))])
def test_new_events_are_printed_as_they_are_stored(engine: str, tmp_path: Path, servers: Servers) -> None:
    """First what is there, then what is stored; each event once and in order, while the server goes on writing."""
    with served(engine, tmp_path, servers) as server:
        url = server.environ["WEBHOOK_INBOX"]
        for _ in range(3):
            assert server.notify(catalogue.notification("message text")).status == 200
        stop = threading.Event()

        def send() -> None:
            while not stop.is_set():
                assert server.notify(catalogue.batch(7)).status == 200

        sender = threading.Thread(target=send)
        sender.start()
        try:
            with Follower(url, "--json") as follower:
                ids = [json.loads(follower.line())["id"] for _ in range(700)]
                stop.set()
                sender.join()
                expected = [event.id for event in server.kept()]
                ids += [json.loads(follower.line())["id"] for _ in range(len(expected) - 700)]
                assert server.notify(catalogue.notification("message image")).status == 200
                assert json.loads(follower.line())["type"] == "com.whatsapp.message.image"
                assert follower.rest() == []
        finally:
            stop.set()
            sender.join()
        assert ids == expected


def test_the_table_is_followed(server: Server) -> None:
    """The newest as a table, then a row for each new event that matches the filters."""
    for kind in ("message text", "status read"):
        assert server.notify(catalogue.notification(kind)).status == 200
    with Follower(server.environ["WEBHOOK_INBOX"], "--type", "com.whatsapp.message.*", "--limit", "5") as follower:
        assert follower.line().split()[:3] == ["position", "received", "type"]
        assert follower.line().split()[0] == "1"
        for kind in ("status sent", "message image", "template approved", "message audio"):
            assert server.notify(catalogue.notification(kind)).status == 200
        assert follower.line().split()[0] == "4"
        assert follower.line().split()[0] == "6"
        assert follower.rest() == []


def test_an_empty_inbox_is_followed(server: Server) -> None:
    """The columns are printed before there is an event; without --show-text no text of a message is printed."""
    with (
        Follower(server.environ["WEBHOOK_INBOX"]) as plain,
        Follower(server.environ["WEBHOOK_INBOX"], "--show-text") as texts,
    ):
        assert "text" not in plain.line().split()
        assert "text" in texts.line().split()
        assert server.notify(catalogue.notification("message text")).status == 200
        assert "stock" not in plain.line()
        assert "Is it in stock?" in texts.line()
        assert plain.rest() == texts.rest() == []


@pytest.mark.parametrize("engine", [pytest.param(each, marks=pytest.mark.needs(each)) for each in ("kafka", "nats")])
def test_a_stream_is_followed_by_its_own_consumers(engine: str, tmp_path: Path, servers: Servers) -> None:
    """Kafka and NATS have no log: the command says so, with status 2."""
    with served(engine, tmp_path, servers) as server:
        said = server.run("events", "list", "--follow", ok=False)
    assert "--follow works with SQLite and PostgreSQL only" in said
