"""The README's commands on one machine, each block as it is written; only ports, the directory and POSITION differ."""

import json
import os
import re
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

import pytest

from tests.support.make_run import ROOT, Run
from tests.support.server import free_port, until


def blocks(title: str) -> list[str]:
    """Return the shell blocks of a section of the README, without those of its subsections."""
    section = re.split(rf"^#+ {title}$", (ROOT / "README.md").read_text(), flags=re.MULTILINE)[1]
    section = re.split(r"^#+ ", section, flags=re.MULTILINE)[0]
    return re.findall(r"^```sh\n(.*?)^```$", section, re.MULTILINE | re.DOTALL)


class Shell:
    """Runs blocks in one shell after the other; what one exports, the next one has."""

    def __init__(self, run: Run, directory: Path, application: int) -> None:
        self._directory = directory
        self._instead = {
            "8080": str(run.ports["WEBHOOK_BIND"]),
            "3000": str(application),
            "$PWD/.dev": str(directory),
            ".dev/": f"{directory}/",
        }
        self._exports = ""

    def run(self, block: str) -> str:
        block = self._here(block)
        self._exports += "".join(line + "\n" for line in block.splitlines() if line.startswith("export "))
        command = ["bash", "-euo", "pipefail", "-c", self._exports + block]
        environment = {name: value for name, value in os.environ.items() if not name.startswith("WEBHOOK_")}
        done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
        assert done.returncode == 0, f"{block}{done.stdout}{done.stderr}"
        return done.stdout

    def pending(self, destination: str) -> int:
        """Return the number of events that are pending for *destination*."""
        statuses = map(json.loads, self.run("whatsapp-webhook destinations list --json").splitlines())
        return next(int(each["backlog"]) for each in statuses if each["name"] == destination)

    @contextmanager
    def started(self, block: str) -> Iterator[Callable[[], list[str]]]:
        """Run the program of *block* until the end; yield a function that returns the events that it printed."""
        printed = self._directory / f"application-{len(list(self._directory.iterdir()))}"
        with printed.open("wb") as log, self._start(block, log) as process:
            try:
                yield lambda: [line for line in printed.read_text().splitlines() if line.startswith("got ")]
            finally:
                process.kill()

    def _start(self, block: str, log: IO[bytes]) -> "subprocess.Popen[bytes]":
        return subprocess.Popen(["bash", "-c", f"exec {self._here(block)}"], cwd=ROOT, stdout=log, stderr=log)

    def _here(self, block: str) -> str:
        for written, here in self._instead.items():
            block = block.replace(written, here)
        return block


@pytest.fixture
def run(tmp_path: Path) -> Iterator[Run]:
    made = Run(tmp_path)
    try:
        until(made.is_ready, made.output)
        yield made
    finally:
        made.end()


def test_from_the_first_event_to_a_replay(run: Run, tmp_path: Path) -> None:
    """Events are stored and printed, reach the user's own application, and one of them a second time."""
    make_run, play = blocks("Try it")
    assert make_run == "make run\n"
    add, start = blocks("Send events to your own application")
    (replay,) = blocks("Stop your application, find an event, replay it")
    shell = Shell(run, tmp_path, free_port())
    printed = shell.run(play)
    until(lambda: "com.whatsapp.message.text" in run.output(), run.output)
    assert json.loads(next(line for line in printed.splitlines() if line.startswith("{")))["specversion"] == "1.0"
    shell.run(add)
    simulate = "whatsapp-webhook simulate http://127.0.0.1:8080/webhooks"
    with shell.started(start) as application:
        shell.run(simulate)
        until(lambda: len(application()) > 80, lambda: f"{len(application())} arrived")
    shell.run(simulate)
    with shell.started(start) as application:
        until(lambda: len(application()) > 80, lambda: f"{len(application())} arrived")
        until(lambda: shell.pending("mine") == 0, lambda: f"{shell.pending('mine')} pending")
    listed = shell.run(replay.splitlines()[1])
    position = re.findall(r"^ *(\d+) ", listed, re.MULTILINE)[-1]
    with shell.started(start) as application:
        assert "mine" in shell.run(replay.replace("POSITION", position))
        until(lambda: len(application()) == 1, lambda: f"{len(application())} arrived")
