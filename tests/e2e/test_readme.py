"""The README's commands on one machine, each block as it is written; only ports and the directory differ."""

import json
import os
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.destination import destination, saying
from tests.support.make_run import ROOT, Run
from tests.support.server import until


def blocks(title: str) -> list[str]:
    """Return the shell blocks of a section of the README, without those of its subsections."""
    section = re.split(rf"^#+ {title}$", (ROOT / "README.md").read_text(), flags=re.MULTILINE)[1]
    section = re.split(r"^#+ ", section, flags=re.MULTILINE)[0]
    return re.findall(r"^```sh\n(.*?)^```$", section, re.MULTILINE | re.DOTALL)


class Shell:
    """Runs blocks in one shell after the other; what one exports, the next one has."""

    def __init__(self, run: Run, directory: Path, application: int) -> None:
        self._instead = {
            "8080": str(run.ports["WEBHOOK_BIND"]),
            "3000": str(application),
            "$PWD/.dev": str(directory),
            ".dev/": f"{directory}/",
        }
        self._exports = ""

    def run(self, block: str) -> str:
        for written, here in self._instead.items():
            block = block.replace(written, here)
        self._exports += "".join(line + "\n" for line in block.splitlines() if line.startswith("export "))
        command = ["bash", "-euo", "pipefail", "-c", self._exports + block]
        environment = {name: value for name, value in os.environ.items() if not name.startswith("WEBHOOK_")}
        done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
        assert done.returncode == 0, f"{block}{done.stdout}{done.stderr}"
        return done.stdout


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
    make_run, play, make_test = [*blocks("Try it"), *blocks("Lose an event, find it, replay it")[1:]]
    assert make_run == "make run\n"
    assert make_test == "make test\n"
    (add,) = blocks("Send events to your own application")
    replay = blocks("Lose an event, find it, replay it")[0]
    with destination(saying()) as application:
        shell = Shell(run, tmp_path, application.port)
        printed = shell.run(play)
        until(lambda: "com.whatsapp.message.text" in run.output(), run.output)
        assert json.loads(next(line for line in printed.splitlines() if line.startswith("{")))["specversion"] == "1.0"
        shell.run(add)
        shell.run("whatsapp-webhook simulate http://127.0.0.1:8080/webhooks")
        until(lambda: len(application.requests) > 1000, lambda: f"{len(application.requests)} arrived")
        first = json.loads(shell.run("whatsapp-webhook events list --json").splitlines()[0])["data"]
        assert first not in map(json.loads, application.bodies()), "stored before the destination was added"
        assert "mine" in shell.run(replay)
        until(lambda: first in map(json.loads, application.bodies()), "never replayed")
