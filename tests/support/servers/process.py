"""A server's process, which can be started, signalled and killed."""

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

START_TIMEOUT_SECONDS = 30.0


def unprivileged() -> int | None:
    """Return the user id for a server that refuses to run as root; None if this process is not root."""
    return pwd.getpwnam("nobody").pw_uid if os.geteuid() == 0 else None


def directory(name: str) -> Path:
    """Create a directory that the unprivileged user may use, unlike those of pytest."""
    path = Path(tempfile.mkdtemp(prefix=f"{name}-"))
    if (user := unprivileged()) is not None:
        os.chown(path, user, -1)
    return path


@cache
def executable(programs: Path) -> Path:
    """Return a directory with these *programs* that the unprivileged user may enter: a copy of their tree if needed.

    Programs below /root, as in a container, are accessible to root only.
    """
    user = unprivileged()
    if user is None or _may_run(programs, user):
        return programs
    copy = directory("programs")
    atexit.register(shutil.rmtree, copy, ignore_errors=True)
    tree, package = programs.parent, programs.parent.parent
    shutil.copytree(tree, copy / package.name / tree.name, symlinks=True)
    libraries = package.with_name(f"{package.name}.libs")  # the programs of a wheel load them by their relative path
    if libraries.is_dir():
        shutil.copytree(libraries, copy / libraries.name)
    return copy / package.name / tree.name / programs.name


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
        """Start it, and wait until it is up."""
        with self.log.open("ab") as log:
            self.running = subprocess.Popen(
                self.command, stdout=log, stderr=log, start_new_session=True, user=self.user
            )
        deadline = time.monotonic() + START_TIMEOUT_SECONDS
        while not is_up():
            assert self.running.poll() is None, f"the server exited: {self.log.read_text()[-2000:]}"
            assert time.monotonic() < deadline, f"the server does not respond: {self.log.read_text()[-2000:]}"
            time.sleep(0.05)

    def signal(self, number: int) -> None:
        """Send a signal to it and its children."""
        assert self.running
        process = psutil.Process(self.running.pid)  # not by process group: each of PostgreSQL's children has its own
        for each in (process, *process.children(recursive=True)):
            with suppress(psutil.NoSuchProcess):
                each.send_signal(number)

    def kill(self) -> None:
        """Kill it and its children with SIGKILL."""
        if self.running:
            with suppress(psutil.NoSuchProcess):
                self.signal(signal.SIGKILL)
            self.running.wait()
            self.running = None
