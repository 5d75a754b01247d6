"""Many commands, quickly: each is a process of its own, forked from one that has loaded the program already.

What a command is given (arguments, environment, standard input) and what it gives (both outputs, its status) are as
those of a process that was started; only the second that Python takes to load it is spared.
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

PATIENCE = 120.0  # seconds


class Commands:
    """The process that forks."""

    def __init__(self) -> None:
        self._socket, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._socket.settimeout(PATIENCE)
        with theirs:
            command = [sys.executable, "-m", __name__, str(theirs.fileno())]
            self._process = subprocess.Popen(command, pass_fds=[theirs.fileno()])  # ends with the socket

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
            said = []
            for file in (out, err):
                file.seek(0)
                said.append(file.read().decode())
        return subprocess.CompletedProcess(arguments, status, *said)


@cache
def _commands() -> Commands:
    return Commands()


def run(*arguments: str, environ: Mapping[str, str], given: bytes = b"") -> subprocess.CompletedProcess[str]:
    """Run `whatsapp-webhook` with these arguments and this environment."""
    return _commands().run(arguments, environ, given)


def _fork(listening: socket.socket) -> None:
    from service import cli  # noqa: PLC0415  what takes a second

    gc.freeze()  # else each child, as it ends, copies and collects all of that: a quarter second
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
