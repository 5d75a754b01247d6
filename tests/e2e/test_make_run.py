"""`make run` starts all parts, once per directory, and leaves no process behind."""

import os
import re
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.make_run import ROOT, Run, make_run
from tests.support.server import ask, until

OWN_DESTINATION = """\
  - name: mine
    url: http://127.0.0.1:3000/
    internal: true
    format: meta
    secretFile: credentials/app-secret
"""


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
    """It is refused, even on other ports, changes no file of the first one, and the first one continues."""
    written = settings_in(tmp_path)
    second = Run(tmp_path)
    try:
        assert second.process.wait(20) != 0
    finally:
        second.end()
    assert "already running in this directory" in second.output()
    assert settings_in(tmp_path) == written
    until(run.is_ready, run.output)


def test_the_next_run_on_another_port(run: Run, tmp_path: Path) -> None:
    """It keeps credentials, secret and the user's own destinations, and delivers to the example's new port."""
    with (tmp_path / "destinations.yaml").open("a") as file:
        file.write(OWN_DESTINATION)
    written = settings_in(tmp_path)
    run.end()
    following = Run(tmp_path)
    try:
        until(following.is_ready, following.output)
        changed = {name: text for name, text in settings_in(tmp_path).items() if text != written[name]}
    finally:
        following.end()
    before, after = (f"127.0.0.1:{each.example}/" for each in (run, following))
    assert changed == {"destinations.yaml": written["destinations.yaml"].replace(before, after)}


def test_the_exports_have_the_chosen_ports(run: Run) -> None:
    """`doctor` and `check` in the second terminal then ask this service."""
    for name, port in run.ports.items():
        assert re.search(rf"^  export .*\b{name}=127.0.0.1:{port}\b", run.output(), re.MULTILINE), name


def settings_in(directory: Path) -> dict[str, str]:
    """Return the texts of the credentials, secret and destinations that `make run` creates, by path."""
    files = [*directory.glob("credentials/*"), *directory.glob("*secret*"), *directory.glob("*.yaml")]
    return {str(file.relative_to(directory)): file.read_text() for file in files}


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
