"""`make run` starts all parts, once per directory, and leaves no process behind."""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.server import ask, free_port, until

ROOT = Path(__file__).parents[2]


def make_run(directory: Path) -> list[str]:
    """Return the command, with the Python of these tests; it does not check the installation."""
    return ["make", "-o", ".venv/.serving", "run", f"BIN={Path(sys.executable).parent}", f"DEV={directory}"]


class Run:
    """`make run` in its own directory and session, as in a terminal."""

    def __init__(self, directory: Path) -> None:
        self.ports = {"WEBHOOK_BIND": free_port(), "WEBHOOK_ADMIN_BIND": free_port(), "WEBHOOK_RELAY_BIND": free_port()}
        self.example = free_port()
        self._output = directory / f"output-{self.example}"
        self.process = subprocess.Popen(
            [*make_run(directory), *self.variables()],
            cwd=ROOT,
            stdin=subprocess.DEVNULL,
            stdout=self._output.open("wb"),
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )

    def variables(self) -> list[str]:
        binds = [f"{name}=127.0.0.1:{port}" for name, port in self.ports.items()]
        return [*binds, f"EXAMPLE_PORT={self.example}"]

    def output(self) -> str:
        return self._output.read_text()

    def is_ready(self) -> bool:
        try:
            admin = [ask(self.ports[name], "GET", "/readyz", None, {}) for name in list(self.ports)[1:]]
        except OSError:
            assert self.process.poll() is None, self.output()
            return False
        return all(answer.status == 200 for answer in admin)

    def is_gone(self) -> bool:
        self.process.poll()
        try:
            os.killpg(self.process.pid, 0)
        except ProcessLookupError:
            return True
        return False

    def end(self) -> None:
        if not self.is_gone():
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()


@pytest.fixture
def run(tmp_path: Path) -> Iterator[Run]:
    made = Run(tmp_path)
    try:
        until(made.is_ready, made.output)
        yield made
    finally:
        made.end()


@pytest.mark.parametrize("number", [signal.SIGHUP, signal.SIGINT, signal.SIGTERM], ids=lambda number: number.name)
def test_no_process_is_left_behind(run: Run, number: signal.Signals) -> None:
    """A closed terminal (HUP) or Ctrl-C reaches every process of the group, and all of them exit."""
    os.killpg(run.process.pid, number)
    until(run.is_gone, run.output)
    for port in (*run.ports.values(), run.example):
        with pytest.raises(OSError, match="refused"):
            ask(port, "GET", "/", None, {})


def test_a_second_run_in_the_same_directory(run: Run, tmp_path: Path) -> None:
    """It is refused, even on other ports, and the first one continues."""
    second = Run(tmp_path)
    try:
        assert second.process.wait(20) != 0
    finally:
        second.end()
    assert "at work in this directory already" in second.output()
    assert run.is_ready()


def test_a_port_in_use(run: Run, tmp_path: Path) -> None:
    """Nothing starts. The error names each port in use with the command that chooses another."""
    (tmp_path / "other").mkdir()
    found = subprocess.run(
        [*make_run(tmp_path / "other"), *run.variables()],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
        timeout=20,
    )
    assert found.returncode != 0
    for name in (*run.ports, "EXAMPLE_PORT"):
        assert f"make run {name}=" in found.stderr
    assert not (tmp_path / "other" / "inbox.db").exists()
