"""Signals that make other programs reload or change their workers, and a process without file descriptors."""

import json
import signal
import socket
import time
from contextlib import suppress
from pathlib import Path

import psutil
import pytest

from tests.support.destination import destination
from tests.support.engines import Servers, place
from tests.support.relaying import Relay, keep, message, opened, write
from tests.support.server import Server, until
from tests.support.traffic import Traffic

SIGNALS = (signal.SIGHUP, signal.SIGTTIN, signal.SIGTTOU, signal.SIGUSR2, signal.SIGWINCH)


@pytest.mark.parametrize(
    "engine",
    ["sqlite", *(pytest.param(each, marks=pytest.mark.needs(each)) for each in ("postgresql", "kafka", "nats"))],
)
def test_signals_are_ignored_under_load(engine: str, tmp_path: Path, servers: Servers) -> None:
    """Each is sent to both processes: every answer is 200, no process exits or starts, each signal is logged."""
    with Server(tmp_path, WEBHOOK_INBOX=place(engine, tmp_path, servers).text) as server:
        assert server.process
        master = psutil.Process(server.process.pid)
        (worker,) = master.children()
        with Traffic(server, pause=0.01) as traffic:
            for number in SIGNALS:
                before = len(traffic.kept)
                master.send_signal(number)
                worker.send_signal(number)
                until(lambda before=before: len(traffic.kept) > before + 20, "no answers")
            time.sleep(1)
        assert set(traffic.answers) == {"200"}
        assert master.children() == [worker]
        logged = [line["signal"] for line in server.log_lines() if line["event"] == "signal ignored"]
        assert logged == [number.name for number in SIGNALS]


def test_a_relay_ignores_them_too(tmp_path: Path) -> None:
    """It continues to deliver."""
    inbox = opened(tmp_path)
    with destination() as app:
        write(tmp_path, {"url": f"http://127.0.0.1:{app.port}/"})
        with Relay(tmp_path) as relay:
            assert relay.process
            for sent, number in enumerate(SIGNALS, start=1):
                relay.process.send_signal(number)
                keep(inbox, message(1, sent))
                until(lambda sent=sent: len(app.requests) == sent, "not delivered")
            logged = [line["signal"] for line in relay.log_lines() if line["event"] == "signal ignored"]
            assert logged == [number.name for number in SIGNALS]
    inbox.close()


def test_out_of_file_descriptors(tmp_path: Path) -> None:
    """Every line of the log is JSON, and the server answers again once descriptors are free."""
    with Server(tmp_path, WEBHOOK_LOG_FORMAT="json") as server:
        assert server.process
        (worker,) = psutil.Process(server.process.pid).children()
        limit = worker.num_fds() + 20  # below the limit that the worker has read
        worker.rlimit(psutil.RLIMIT_NOFILE, (limit, limit))
        clients = []
        for _ in range(120):
            with suppress(OSError):
                clients.append(socket.create_connection(("127.0.0.1", server.port), timeout=2))
        until(lambda: "connection not accepted" in server.log_file.read_text(), "it never was out of them")
        time.sleep(2)
        for client in clients:
            client.close()
        until(lambda: _answers(server), "it does not answer again")
    for line in server.log_file.read_text().splitlines():
        assert json.loads(line)["event"]


def _answers(server: Server) -> bool:
    with suppress(OSError):
        return server.handshake().status == 200
    return False
