"""Runs many commands quickly: each is a process, forked from one that has already loaded the program.

Arguments, environment, standard input, both outputs and the exit status are those of a process that was started
normally; only the second that Python takes to load the program is saved.
"""

import gc
import json
import os
import socket
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from functools import cache
from pathlib import Path

TIMEOUT_SECONDS = 120.0


class Commands:
    """The process that forks."""

    def __init__(self) -> None:
        self._socket, child_socket = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._socket.settimeout(TIMEOUT_SECONDS)
        with child_socket:
            command = [sys.executable, "-m", __name__, str(child_socket.fileno())]
            # It exits when the socket is closed.
            self._process = subprocess.Popen(command, pass_fds=[child_socket.fileno()])

    def run(
        self, arguments: tuple[str, ...], environ: Mapping[str, str], given: bytes
    ) -> subprocess.CompletedProcess[str]:
        """Run `whatsapp-webhook` with these arguments; *given* is its standard input."""
        with tempfile.TemporaryFile() as stdin, tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:
            stdin.write(given)
            stdin.seek(0)
            request = {"arguments": arguments, "environ": dict(environ), "directory": str(Path.cwd())}
            files = [stdin.fileno(), out.fileno(), err.fileno()]
            socket.send_fds(self._socket, [json.dumps(request).encode()], files)
            status = int(self._socket.recv(100))
            outputs = []
            for file in (out, err):
                file.seek(0)
                outputs.append(file.read().decode())
        return subprocess.CompletedProcess(arguments, status, *outputs)


@cache
def _commands() -> Commands:
    return Commands()


def run(*arguments: str, environ: Mapping[str, str], given: bytes = b"") -> subprocess.CompletedProcess[str]:
    """Run `whatsapp-webhook` with these arguments and this environment."""
    return _commands().run(arguments, environ, given)


def _fork(listening: socket.socket) -> None:
    from service import cli  # noqa: PLC0415  importing it takes a second

    gc.freeze()  # otherwise each child copies and collects these objects when it exits: a quarter of a second
    while True:
        message, files, _, _ = socket.recv_fds(listening, 1_000_000, 3)
        if not message:
            return
        request = json.loads(message)
        if child := os.fork():
            for file in files:
                os.close(file)
            _, status = os.waitpid(child, 0)
            listening.send(str(os.waitstatus_to_exitcode(status)).encode())
            continue
        for number, file in enumerate(files):
            os.dup2(file, number)
        listening.close()
        os.environ.clear()
        os.environ.update(request["environ"])
        os.chdir(request["directory"])
        sys.argv = ["whatsapp-webhook", *request["arguments"]]
        cli.main()


if __name__ == "__main__":
    _fork(socket.socket(fileno=int(sys.argv[1])))
