"""A server's process, and what may happen to it."""

import atexit
import os
import pwd
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import cache
from pathlib import Path

import psutil

PATIENCE = 30.0


def unprivileged() -> int | None:
    """Give the user that a server which refuses root runs as; None where we are not root."""
    return pwd.getpwnam("nobody").pw_uid if os.geteuid() == 0 else None


def directory(name: str) -> Path:
    """Make a directory that the unprivileged user may use, which pytest's own are not."""
    made = Path(tempfile.mkdtemp(prefix=f"{name}-"))
    if (user := unprivileged()) is not None:
        os.chown(made, user, -1)
    return made


@cache
def executable(programs: Path) -> Path:
    """Return a folder with these *programs* that the unprivileged user may enter: a copy of their tree if need be.

    What is installed below /root, as in a container, is root's alone.
    """
    user = unprivileged()
    if user is None or _may_run(programs, user):
        return programs
    copied = directory("programs")
    atexit.register(shutil.rmtree, copied, ignore_errors=True)
    tree, package = programs.parent, programs.parent.parent
    shutil.copytree(tree, copied / package.name / tree.name, symlinks=True)
    libraries = package.with_name(f"{package.name}.libs")  # where a wheel has them, which the programs find from here
    if libraries.is_dir():
        shutil.copytree(libraries, copied / libraries.name)
    return copied / package.name / tree.name / programs.name


def _may_run(programs: Path, user: int) -> bool:
    try:
        done = subprocess.run([programs / "initdb", "--version"], user=user, cwd="/", capture_output=True, check=False)
    except OSError:
        return False
    return done.returncode == 0


class Process:
    """One process and its children."""

    def __init__(self, command: Sequence[str], log: Path, *, user: int | None = None) -> None:
        self.command = list(command)
        self.log = log
        self.user = user
        self.running: subprocess.Popen[bytes] | None = None

    def start(self, is_up: Callable[[], bool]) -> None:
        """Start it and wait until it answers."""
        with self.log.open("ab") as log:
            self.running = subprocess.Popen(
                self.command, stdout=log, stderr=log, start_new_session=True, user=self.user
            )
        deadline = time.monotonic() + PATIENCE
        while not is_up():
            assert self.running.poll() is None, f"it ended: {self.log.read_text()[-2000:]}"
            assert time.monotonic() < deadline, f"it does not answer: {self.log.read_text()[-2000:]}"
            time.sleep(0.05)

    def signal(self, number: int) -> None:
        """Send a signal to it and its children."""
        assert self.running
        whole = psutil.Process(self.running.pid)  # not by its group: PostgreSQL's children have one each
        for each in (whole, *whole.children(recursive=True)):
            with suppress(psutil.NoSuchProcess):
                each.send_signal(number)

    def kill(self) -> None:
        """End it with -9."""
        if self.running:
            with suppress(psutil.NoSuchProcess):
                self.signal(signal.SIGKILL)
            self.running.wait()
            self.running = None
