"""kill -9 at random moments under load: all that was answered 200 is stored, and nothing that was never sent."""

import os
import random
import signal
import sys
import time
from pathlib import Path

import psutil
import pytest

from tests.faults.ledger import Ledger, kept_ids
from tests.support.engines import Servers, place
from tests.support.server import Server

ROUNDS = int(os.environ.get("TEST_KILL_ROUNDS", "8"))


def kill_worker_or_server(server: Server) -> None:
    """Kill the worker, or the whole server, with SIGKILL."""
    worker = psutil.Process(server.process.pid).children()[0]
    if random.random() < 0.5:
        worker.send_signal(signal.SIGKILL)
    else:
        server.kill()


@pytest.mark.timeout(7200)
@pytest.mark.parametrize(
    "engine",
    ["sqlite", *(pytest.param(each, marks=pytest.mark.needs(each)) for each in ("postgresql", "kafka", "nats"))],
)
def test_every_acknowledged_event_survives(engine: str, tmp_path: Path, servers: Servers) -> None:
    """In each round: load, a kill at a random moment, and a comparison of the ledger with the inbox."""
    server = Server(tmp_path, WEBHOOK_INBOX=place(engine, tmp_path, servers).text)
    server.write_credentials(server.token, server.secret)
    rounds = ROUNDS if engine == "sqlite" else ROUNDS // 2
    sent: set[str] = set()
    acknowledged: set[str] = set()
    try:
        for number in range(rounds):
            if server.process is None:
                server.start()
            server.wait_until_ready()
            with Ledger(server, size=1 + number % 3) as ledger:
                ledger.wait_for(20)
                time.sleep(random.random() * 0.4)
                kill_worker_or_server(server)
                time.sleep(0.05)
            sent |= ledger.sent
            acknowledged |= ledger.acknowledged
            stored = kept_ids(server)
            lost = acknowledged - stored
            assert not lost, f"lost in round {number}: {len(lost)} of {len(acknowledged)}"
            assert not stored - sent, "an event is stored that was never sent"
    finally:
        server.kill()
    print(f"{engine}: {rounds} kills, {len(acknowledged)} events acknowledged, none lost")
    assert len(acknowledged) >= rounds * 20


def test_the_control_loses(tmp_path: Path) -> None:
    """A server that answers before it commits must lose events, or the test above proves nothing."""
    server = Server(tmp_path, command=[sys.executable, "-m", "tests.faults.eager", "serve"])
    server.write_credentials(server.token, server.secret)
    lost = 0
    try:
        for _ in range(10):
            server.start()
            server.wait_until_ready()
            with Ledger(server) as ledger:
                ledger.wait_for(100)
                server.kill()
            lost += len(ledger.acknowledged - kept_ids(server))
            if lost:
                break
    finally:
        server.kill()
    assert lost
