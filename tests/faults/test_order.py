"""The order of system calls: the log is synced before the answer is sent."""

import re
import signal
import subprocess
import time
from pathlib import Path

import psutil
import pytest
from server import Server, until

from service.meta import catalogue


@pytest.mark.needs("strace")
def test_the_log_is_synced_before_the_answer_is_sent(server: Server, tmp_path: Path) -> None:
    """For each notification: the request is received, the WAL is written and synced, and then 200 is sent."""
    worker = psutil.Process(server.process.pid).children()[0]
    trace = tmp_path / "trace"
    with subprocess.Popen(
        [
            "strace",
            "-f",
            "-tt",
            "-y",
            "-s",
            "64",
            "-e",
            "trace=recvfrom,sendto,fdatasync,fsync,pwrite64",
            "-o",
            trace,
            "-p",
            str(worker.pid),
        ],
        stderr=subprocess.PIPE,
    ) as strace:
        assert b"attached" in strace.stderr.readline()
        time.sleep(0.3)
        for _ in range(10):
            assert server.notify(catalogue.notification("message text")).status == 200
        strace.send_signal(signal.SIGINT)
        strace.wait(10)
    until(trace.exists, "no trace")
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
    story = " ".join(step for number, step in enumerate(steps) if number == 0 or steps[number - 1] != step)
    # Written and synced twice where a log is begun anew: its header first.
    assert re.fullmatch(r"(received (written synced ){1,2}answered ?){10}", story), story
