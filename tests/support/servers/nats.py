"""A real NATS: the program nats-server in TEST_NATS, or the one of a Python package."""

import itertools
import json
import os
import shutil
import signal
import sys
from pathlib import Path
from typing import Any, Self

import urllib3

from tests.support.server import free_port
from tests.support.servers.process import Process, directory

_numbers = itertools.count()


def program() -> str | None:
    """Return the path of the program, or None."""
    return os.environ.get("TEST_NATS") or shutil.which(
        "nats-server", path=f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    )


class Nats:
    """One server in its own directory, which syncs every write."""

    def __init__(self, where: Path | None = None, *, sync: str = "always", more: str = "", alone: bool = True) -> None:
        """*where* is an empty directory for its data, *more* is added to its configuration; *alone*: not clustered."""
        self.alone = alone
        path = program()
        assert path
        self.directory = directory("nats") if where is None else where
        self.port, self.monitor_port = free_port(), free_port()
        self.file = self.directory / "nats.conf"
        self.more = more
        self.configure(sync)
        self.process = Process([path, "-c", str(self.file)], self.directory / "log")

    def configure(self, sync: str, **limits: str) -> None:
        """Write its configuration, for the next start."""
        jetstream = {"store_dir": f'"{self.directory}/data"', "sync_interval": sync, **limits}
        settings = ", ".join(f"{name}: {value}" for name, value in jetstream.items())
        listeners = f"listen: 127.0.0.1:{self.port}\nhttp: 127.0.0.1:{self.monitor_port}\n"
        self.file.write_text(f"{listeners}jetstream {{ {settings} }}\n{self.more}\n")

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.process.kill()
        shutil.rmtree(self.directory, ignore_errors=True)

    def start(self) -> None:
        """Start it, and wait until it is up."""
        self.process.start(self.is_up)

    def is_up(self) -> bool:
        """Return whether JetStream works; in a cluster, whether the server runs."""
        try:
            path = "healthz" if self.alone else "varz"
            return urllib3.request("GET", f"{self.monitor}/{path}", timeout=1, retries=False).status == 200
        except urllib3.exceptions.HTTPError:
            return False

    @property
    def monitor(self) -> str:
        """Return the URL of its monitoring endpoint."""
        return f"http://127.0.0.1:{self.monitor_port}"

    def jsz(self) -> Any:
        """Return JetStream's own report."""
        return json.loads(urllib3.request("GET", f"{self.monitor}/jsz?config=1&streams=1").data)

    def new_stream(self, **options: str) -> str:
        """Return the URL of a stream that does not exist yet."""
        more = "".join(f"&{name}={value}" for name, value in options.items())
        return f"nats://127.0.0.1:{self.port}/TEST_{next(_numbers)}?monitor={self.monitor}{more}"

    def stop(self) -> None:
        """Stop it with SIGTERM."""
        self.process.signal(signal.SIGTERM)
        assert self.process.running
        self.process.running.wait(20)
        self.process.running = None
