"""Failures of the engine's server under load: each request is answered 200 or 503 in time, and nothing is lost."""

import os
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psutil
import pytest

from tests.faults.ledger import Ledger, kept_ids
from tests.support.engines import Servers
from tests.support.server import Server, until
from tests.support.servers.nats import Nats
from tests.support.servers.postgresql import Postgresql
from tests.support.servers.process import directory

MAX_ANSWER_SECONDS = 2.5
MAX_RECOVERY_SECONDS = 5.0  # until the service is ready again
pytestmark = pytest.mark.alone
STOPPED_SECONDS = float(os.environ.get("TEST_STOPPED_SECONDS", "4"))
MAX_GROWTH_BYTES = 40 * 2**20  # of the service's memory, temporarily


class OnServer:
    """A server for one test, with an inbox on it."""

    def __init__(self, server: Postgresql | Nats) -> None:
        self.server = server.__enter__()
        self.url = server.new_database() if isinstance(server, Postgresql) else server.new_stream()
        self.kill = self.server.process.kill
        self.start = self.server.start
        self.signal = self.server.process.signal
        self.close = self.server.__exit__

    def ports(self) -> list[int]:
        return [self.server.port]


def postgresql(where: Path | None = None) -> OnServer:
    return OnServer(Postgresql(where, min_wal_size="32MB", max_wal_size="64MB"))


def nats(where: Path | None = None) -> OnServer:
    return OnServer(Nats(where))


class OnKafka:
    """The three brokers that all tests share: each method applies to all of them."""

    def __init__(self, servers: Servers) -> None:
        self.brokers = servers.kafka()
        self.url = self.brokers.new_topic()

    def signal(self, number: int) -> None:
        for broker in (1, 2, 3):
            self.brokers.signal(broker, number)

    def kill(self) -> None:
        self.signal(signal.SIGKILL)

    def start(self) -> None:
        self.brokers.restore()

    def ports(self) -> list[int]:
        return [int(each.rpartition(":")[2]) for each in self.brokers.servers.split(",")]

    def close(self) -> None:
        self.brokers.restore()


@pytest.fixture(params=[pytest.param(name, marks=pytest.mark.needs(name)) for name in ("postgresql", "kafka", "nats")])
def engine(request: pytest.FixtureRequest, servers: Servers) -> Iterator[Any]:
    on_server = {"postgresql": postgresql, "nats": nats, "kafka": lambda: OnKafka(servers)}[request.param]()
    yield on_server
    on_server.close()


@contextmanager
def service(directory: Path, url: str) -> Iterator[Server]:
    server = Server(directory, WEBHOOK_INBOX=url)
    server.write_credentials(server.token, server.secret)
    server.start()
    try:
        yield server
    finally:
        server.stop()


def worker(server: Server) -> psutil.Process:
    assert server.process
    return psutil.Process(server.process.pid).children()[0]


def check_ledger(server: Server, ledger: Ledger) -> None:
    """Check that every request was answered in time, and that all acknowledged events are stored."""
    print(dict(ledger.answers), f"slowest {ledger.slowest_seconds:.2f} s, {len(ledger.acknowledged)} acknowledged")
    assert set(ledger.answers) <= {200, 503}
    assert ledger.slowest_seconds < MAX_ANSWER_SECONDS
    stored = kept_ids(server)
    lost = ledger.acknowledged - stored
    assert not lost, f"lost: {len(lost)} of {len(ledger.acknowledged)}"
    assert stored <= ledger.sent


def check_outage(
    server: Server, break_it: Callable[[], None], repair: Callable[[], None], *, fails: bool = True
) -> None:
    """Send load to the service, break the server of its engine, repair it, and check the ledger."""
    server.wait_until_ready()
    with Ledger(server) as ledger:
        ledger.wait_for(50)
        threads, memory = worker(server).num_threads(), worker(server).memory_info().rss
        break_it()
        if fails:
            until(lambda: ledger.answers[503], "no request was answered 503")
            assert worker(server).num_threads() <= threads + 2
            assert worker(server).memory_info().rss < memory + MAX_GROWTH_BYTES
        repair()
        repaired = time.monotonic()
        server.wait_until_ready()
        assert time.monotonic() - repaired < MAX_RECOVERY_SECONDS
        ledger.wait_for(len(ledger.acknowledged) + 50)
        assert worker(server).num_threads() <= threads + 2
    check_ledger(server, ledger)


def test_the_server_is_killed_and_restarted(engine: Any, tmp_path: Path) -> None:
    """With SIGKILL: events that were being committed are answered 503; after the restart they are stored again."""

    def break_it() -> None:
        engine.kill()
        time.sleep(2)

    with service(tmp_path, engine.url) as server:
        check_outage(server, break_it, engine.start)


def test_the_server_is_stopped_for_a_while(engine: Any, tmp_path: Path) -> None:
    """With SIGSTOP: it accepts connections and never responds, so only a timeout detects the outage."""

    def break_it() -> None:
        engine.signal(signal.SIGSTOP)
        time.sleep(STOPPED_SECONDS)

    with service(tmp_path, engine.url) as server:
        check_outage(server, break_it, lambda: engine.signal(signal.SIGCONT))


@pytest.mark.needs("ss")
def test_connections_are_cut(engine: Any, tmp_path: Path) -> None:
    """As by a firewall that loses its state, several times; each time at least one connection is cut."""

    def break_it() -> None:
        for _ in range(5):
            until(lambda: local_ports(server, engine.ports()), "there is no connection to cut", 10)
            before = local_ports(server, engine.ports())
            for port in engine.ports():
                subprocess.run(
                    ["ss", "-K", "dst", "127.0.0.1", "dport", "=", f":{port}"], capture_output=True, check=True
                )
            until(lambda before=before: before - local_ports(server, engine.ports()), "ss -K cuts nothing here", 5)
            time.sleep(0.3)

    with service(tmp_path, engine.url) as server:
        check_outage(server, break_it, lambda: None, fails=False)


def local_ports(server: Server, ports: list[int]) -> set[int]:
    """Return the local ports of the worker's connections to these remote ports."""
    connections = worker(server).net_connections(kind="tcp")
    established = [each for each in connections if each.status == psutil.CONN_ESTABLISHED]
    return {each.laddr.port for each in established if each.raddr.port in ports}


def test_the_server_is_started_after_the_service(engine: Any, tmp_path: Path) -> None:
    """Meanwhile the service reports what it waits for, and answers 503."""
    engine.kill()
    with service(tmp_path, engine.url) as server:
        with Ledger(server) as ledger:
            until(lambda: ledger.answers[503] > 5, lambda: f"no 503: {ledger.answers}")
            ready = server.admin("/readyz")
            assert ready.status == 503
            reasons = (b"can't be reached", b"no broker can be reached", b"in time")
            assert any(reason in ready.body for reason in reasons), ready.body
            engine.start()
            started = time.monotonic()
            server.wait_until_ready()
            assert time.monotonic() - started < MAX_RECOVERY_SECONDS
            ledger.wait_for(50)
        check_ledger(server, ledger)


@pytest.mark.needs("postgresql")
def test_postgresql_becomes_read_only(tmp_path: Path) -> None:
    """As a managed PostgreSQL does if its disk is nearly full."""
    with Postgresql() as database, service(tmp_path, database.new_database()) as server:

        def break_it() -> None:
            database.configure(default_transaction_read_only="on")
            until(lambda: b"accepts no writes" in server.admin("/readyz").body, "it is still ready")
            time.sleep(0.5)

        check_outage(server, break_it, lambda: database.configure(default_transaction_read_only="off"))


@contextmanager
def small_disk(size: str) -> Iterator[Path]:
    """Mount a small disk."""
    disk = directory("small")
    owner = disk.stat().st_uid
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size},uid={owner},mode=700", "tmpfs", disk], check=True)
    try:
        yield disk
    finally:
        subprocess.run(["umount", "-l", disk], check=True)
        disk.rmdir()


@pytest.mark.needs("mounts")
@pytest.mark.parametrize(
    ("name", "size"),
    [
        pytest.param("postgresql", "220m", marks=pytest.mark.needs("postgresql")),
        pytest.param("nats", "48m", marks=pytest.mark.needs("nats")),
    ],
)
def test_the_disk_is_full(name: str, size: str, tmp_path: Path) -> None:
    """Meanwhile events are answered 503; those that were acknowledged before are still stored afterwards."""
    with small_disk(size) as disk:
        (disk / "server").mkdir()
        shutil.chown(disk / "server", disk.stat().st_uid)
        engine = {"postgresql": postgresql, "nats": nats}[name](disk / "server")
        try:
            with service(tmp_path, engine.url) as server:

                def break_it() -> None:
                    fill(disk / "filler")
                    until(lambda: server.admin("/readyz").status == 503, "it is still ready", patience=60)
                    time.sleep(1)

                def repair() -> None:
                    (disk / "filler").unlink()
                    engine.kill()  # if they can't write, both servers stop working or exit
                    engine.start()

                check_outage(server, break_it, repair)
        finally:
            engine.close()


def fill(path: Path) -> None:
    """Use all the free space."""
    with path.open("wb", buffering=0) as file:
        try:
            while file.write(bytes(2**16)):
                pass
        except OSError:
            return


@pytest.mark.needs("kafka")
def test_kafka_with_three_brokers(servers: Servers, tmp_path: Path) -> None:
    """If one is killed, the service continues once another one leads; if two are killed, it answers 503."""
    brokers = servers.kafka()
    try:
        url = brokers.new_topic()
        with service(tmp_path, url) as server:
            server.wait_until_ready()
            with Ledger(server) as ledger:
                ledger.wait_for(50)
                brokers.kill(3)
                # The controller misses a broker after nine seconds; if it is the controller itself, they start again.
                until(lambda: brokers.leaders(url) <= {1, 2}, "no other broker leads", patience=30)
                server.wait_until_ready()
                time.sleep(MAX_ANSWER_SECONDS)  # until requests that started before are answered
                before = ledger.answers[503]
                ledger.wait_for(len(ledger.acknowledged) + 200)
                assert ledger.answers[503] == before
                brokers.kill(2)
                until(lambda: server.admin("/readyz").status == 503, "it is ready with one of three", patience=30)
                until(
                    lambda: b"does not respond: start its broker again" in server.admin("/readyz").body,
                    lambda: server.admin("/readyz").body,
                    patience=60,  # the reason alternates between that of a failed write and that of a failed probe
                )
                acknowledged = len(ledger.acknowledged)
                time.sleep(2)
                assert len(ledger.acknowledged) == acknowledged
                brokers.restore()
                server.wait_until_ready()
                ledger.wait_for(acknowledged + 50)
            check_ledger(server, ledger)
    finally:
        brokers.restore()
