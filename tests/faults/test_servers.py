"""What may happen to an inbox that is a server, under load: each request gets 200 or 503 in time, nothing is lost."""

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

LATEST = 2.5  # seconds until every request is answered
BACK = 5.0  # seconds until the service is ready again
pytestmark = pytest.mark.alone
STOPPED = float(os.environ.get("TEST_STOPPED_SECONDS", "4"))
MEMORY = 40 * 2**20  # bytes that the service may take in passing


class OnServer:
    """A server of its own, and an inbox on it."""

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
    """The three brokers of all tests: what is done, is done to all of them."""

    def __init__(self, servers: Servers) -> None:
        self.brokers = servers.kafka()
        self.url = self.brokers.new_topic()

    def signal(self, number: int) -> None:
        for broker in (1, 2, 3):
            self.brokers.signal(broker, number)

    def kill(self) -> None:
        self.signal(signal.SIGKILL)

    def start(self) -> None:
        self.brokers.again()

    def ports(self) -> list[int]:
        return [int(each.rpartition(":")[2]) for each in self.brokers.servers.split(",")]

    def close(self) -> None:
        self.brokers.again()


@pytest.fixture(params=[pytest.param(name, marks=pytest.mark.needs(name)) for name in ("postgresql", "kafka", "nats")])
def engine(request: pytest.FixtureRequest, servers: Servers) -> Iterator[Any]:
    made = {"postgresql": postgresql, "nats": nats, "kafka": lambda: OnKafka(servers)}[request.param]()
    yield made
    made.close()


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


def judge(server: Server, ledger: Ledger) -> None:
    """See that every request was answered in time, and that all that was acknowledged is there."""
    print(dict(ledger.answers), f"slowest {ledger.slowest:.2f} s, {len(ledger.acknowledged)} acknowledged")
    assert set(ledger.answers) <= {200, 503}
    assert ledger.slowest < LATEST
    kept = kept_ids(server)
    assert not ledger.acknowledged - kept, f"lost: {len(ledger.acknowledged - kept)} of {len(ledger.acknowledged)}"
    assert kept <= ledger.sent


def suffer(server: Server, hurt: Callable[[], None], heal: Callable[[], None], *, fails: bool = True) -> None:
    """Put load on the service, hurt what it depends on, heal that, and look."""
    server.wait_until_ready()
    with Ledger(server) as ledger:
        ledger.wait_for(50)
        threads, memory = worker(server).num_threads(), worker(server).memory_info().rss
        hurt()
        if fails:
            until(lambda: ledger.answers[503], "nobody was answered that it can't be stored")
            assert worker(server).num_threads() <= threads + 2
            assert worker(server).memory_info().rss < memory + MEMORY
        heal()
        healed = time.monotonic()
        server.wait_until_ready()
        assert time.monotonic() - healed < BACK
        ledger.wait_for(len(ledger.acknowledged) + 50)
        assert worker(server).num_threads() <= threads + 2
    judge(server, ledger)


def test_killed_and_started_again(engine: Any, tmp_path: Path) -> None:
    """With -9: what was being committed is answered 503, and Meta's next try finds the server there."""

    def hurt() -> None:
        engine.kill()
        time.sleep(2)

    with service(tmp_path, engine.url) as server:
        suffer(server, hurt, engine.start)


def test_stopped_for_a_while(engine: Any, tmp_path: Path) -> None:
    """A server that takes connections and says nothing is the worst kind: nobody is told that it is gone."""

    def hurt() -> None:
        engine.signal(signal.SIGSTOP)
        time.sleep(STOPPED)

    with service(tmp_path, engine.url) as server:
        suffer(server, hurt, lambda: engine.signal(signal.SIGCONT))


@pytest.mark.needs("ss")
def test_connections_cut(engine: Any, tmp_path: Path) -> None:
    """By a firewall that forgot them, again and again; each time at least one is gone."""

    def hurt() -> None:
        for _ in range(5):
            until(lambda: connected(server, engine.ports()), "there is no connection to cut", 10)
            before = connected(server, engine.ports())
            for port in engine.ports():
                subprocess.run(
                    ["ss", "-K", "dst", "127.0.0.1", "dport", "=", f":{port}"], capture_output=True, check=True
                )
            until(lambda before=before: before - connected(server, engine.ports()), "ss -K cuts nothing here", 5)
            time.sleep(0.3)

    with service(tmp_path, engine.url) as server:
        suffer(server, hurt, lambda: None, fails=False)


def connected(server: Server, ports: list[int]) -> set[int]:
    """Return the local ports of the worker's connections to these."""
    found = worker(server).net_connections(kind="tcp")
    return {each.laddr.port for each in found if each.status == psutil.CONN_ESTABLISHED and each.raddr.port in ports}


def test_started_after_the_service(engine: Any, tmp_path: Path) -> None:
    """The service says what it waits for, and answers 503 meanwhile."""
    engine.kill()
    with service(tmp_path, engine.url) as server:
        with Ledger(server) as ledger:
            until(lambda: ledger.answers[503] > 5, lambda: f"no 503: {ledger.answers}")
            ready = server.admin("/readyz")
            assert ready.status == 503
            said = (b"can't be reached", b"no broker can be reached", b"in time")
            assert any(word in ready.body for word in said), ready.body
            engine.start()
            started = time.monotonic()
            server.wait_until_ready()
            assert time.monotonic() - started < BACK
            ledger.wait_for(50)
        judge(server, ledger)


@pytest.mark.needs("postgresql")
def test_postgresql_made_read_only(tmp_path: Path) -> None:
    """As a managed one is whose disk is nearly full."""
    with Postgresql() as database, service(tmp_path, database.new_database()) as server:

        def hurt() -> None:
            database.configure(default_transaction_read_only="on")
            until(lambda: b"accepts no writes" in server.admin("/readyz").body, "it is still ready")
            time.sleep(0.5)

        suffer(server, hurt, lambda: database.configure(default_transaction_read_only="off"))


@contextmanager
def small_disk(size: str) -> Iterator[Path]:
    """Mount a disk that is soon full."""
    where = directory("small")
    owner = where.stat().st_uid
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size},uid={owner},mode=700", "tmpfs", where], check=True)
    try:
        yield where
    finally:
        subprocess.run(["umount", "-l", where], check=True)
        where.rmdir()


@pytest.mark.needs("mounts")
@pytest.mark.parametrize(
    ("name", "size"),
    [
        pytest.param("postgresql", "220m", marks=pytest.mark.needs("postgresql")),
        pytest.param("nats", "48m", marks=pytest.mark.needs("nats")),
    ],
)
def test_the_disk_full(name: str, size: str, tmp_path: Path) -> None:
    """What has no room is answered 503, and what was answered before is there when there is room again."""
    with small_disk(size) as where:
        (where / "server").mkdir()
        shutil.chown(where / "server", where.stat().st_uid)
        engine = {"postgresql": postgresql, "nats": nats}[name](where / "server")
        try:
            with service(tmp_path, engine.url) as server:

                def hurt() -> None:
                    fill(where / "filler")
                    until(lambda: server.admin("/readyz").status == 503, "it is still ready", patience=60)
                    time.sleep(1)

                def heal() -> None:
                    (where / "filler").unlink()
                    engine.kill()  # both stop working, or themselves, where they can't write
                    engine.start()

                suffer(server, hurt, heal)
        finally:
            engine.close()


def fill(path: Path) -> None:
    """Take all the room that is left."""
    with path.open("wb", buffering=0) as file:
        try:
            while file.write(bytes(2**16)):
                pass
        except OSError:
            return


@pytest.mark.needs("kafka")
def test_kafka_of_three_brokers(servers: Servers, tmp_path: Path) -> None:
    """One killed: the service goes on, once another leads. Two killed: 503, with the reason."""
    brokers = servers.kafka()
    try:
        url = brokers.new_topic()
        with service(tmp_path, url) as server:
            server.wait_until_ready()
            with Ledger(server) as ledger:
                ledger.wait_for(50)
                brokers.kill(3)
                # A broker is missed after nine seconds, counted anew where it was the one that counted.
                until(lambda: brokers.leaders(url) <= {1, 2}, "no other broker leads", patience=30)
                server.wait_until_ready()
                time.sleep(LATEST)  # what began before is answered
                before = ledger.answers[503]
                ledger.wait_for(len(ledger.acknowledged) + 200)
                assert ledger.answers[503] == before
                brokers.kill(2)
                until(lambda: server.admin("/readyz").status == 503, "it is ready with one of three", patience=30)
                until(
                    lambda: b"does not answer: bring its broker back" in server.admin("/readyz").body,
                    lambda: server.admin("/readyz").body,
                    patience=60,  # what fails first, a put or a look, is told in turns
                )
                kept = len(ledger.acknowledged)
                time.sleep(2)
                assert len(ledger.acknowledged) == kept
                brokers.again()
                server.wait_until_ready()
                ledger.wait_for(kept + 50)
            judge(server, ledger)
    finally:
        brokers.again()
