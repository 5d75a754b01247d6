"""`make run` starts all parts, once per directory, and leaves no process behind."""

import os
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.make_run import ROOT, Run, make_run
from tests.support.server import ask, until


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
    assert "already running in this directory" in second.output()
    until(run.is_ready, run.output)


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
