"""The order of system calls: the inbox is synced before the response is sent."""

import re
import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil
import pytest

from service.meta import catalogue
from tests.support.server import Server, until


@contextmanager
def traced(server: Server, trace: Path, calls: str) -> Iterator[None]:
    """Write the worker's system *calls* during the block to *trace*."""
    worker = psutil.Process(server.process.pid).children()[0]
    command = ["strace", "-f", "-tt", "-y", "-s", "64", "-e", f"trace={calls}", "-o", trace, "-p", str(worker.pid)]
    with subprocess.Popen(command, stderr=subprocess.PIPE) as strace:
        assert b"attached" in strace.stderr.readline()
        time.sleep(0.3)
        yield
        strace.send_signal(signal.SIGINT)
        strace.wait(10)
    until(trace.exists, "no trace")


@pytest.mark.needs("strace")
def test_no_file_but_the_database_is_opened_for_writing(server: Server, tmp_path: Path) -> None:
    """In a container with a read-only root, SQLite can't create temporary files, for example for a large batch."""
    with traced(server, tmp_path / "trace", "openat"):
        for _ in range(3):
            assert server.notify(catalogue.batch(1000)).status == 200
    opened = set(re.findall(r'openat\(.*?"(.+?)", O_(?:RDWR|WRONLY)', (tmp_path / "trace").read_text()))
    assert {name for name in opened if not name.startswith(f"{tmp_path}/inbox.db")} == set()


@pytest.mark.needs("strace")
def test_the_inbox_is_synced_before_the_response_is_sent(server: Server, tmp_path: Path) -> None:
    """For each notification: the request is received, the WAL is written and synced, and then 200 is sent."""
    trace = tmp_path / "trace"
    with traced(server, trace, "recvfrom,sendto,fdatasync,fsync,pwrite64"):
        for _ in range(10):
            assert server.notify(catalogue.notification("message text")).status == 200
    steps = []
    for line in trace.read_text().splitlines():
        if re.search(r'recvfrom\(.*"POST /webhooks', line):
            steps.append("received")
        elif re.search(r"pwrite64\(\d+<[^>]*inbox\.db-wal>", line):
            steps.append("written")
        elif "unfinished" not in line and re.search(r"sync(\(\d+<[^>]*inbox\.db-wal>| resumed>)", line):
            steps.append("synced")
        elif re.search(r'sendto\(.*"HTTP/1\.1 200', line):
            steps.append("answered")
    order = " ".join(step for number, step in enumerate(steps) if number == 0 or steps[number - 1] != step)
    # A new WAL is written and synced twice: its header first.
    assert re.fullmatch(r"(received (written synced ){1,2}answered ?){10}", order), order
