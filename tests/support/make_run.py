"""`make run` as a user starts it in a terminal, with free ports and a directory of the test."""

import os
import signal
import subprocess
import sys
from pathlib import Path

from tests.support.server import ask, free_port

ROOT = Path(__file__).parents[2]


def make_run(directory: Path) -> list[str]:
    """Return the command, with the Python of these tests; what is installed is not looked at."""
    return ["make", "-o", ".venv/.serving", "run", f"BIN={Path(sys.executable).parent}", f"DEV={directory}"]


class Run:
    """`make run` with a directory of its own, in a session of its own as in a terminal."""

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
