"""Sends raw bytes to a server, and returns its responses."""

import socket
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress

from tests.support.server import free_port, until

# Sent after each case: a server that parsed the case correctly answers it, and closes.
LAST = b"GET /last HTTP/1.1\r\nHost: last\r\nConnection: close\r\n\r\n"
TIMEOUT_SECONDS = 3.0  # longer than the server's own deadline


@contextmanager
def serving(worker: str, *settings: str) -> Iterator[int]:
    """Run the echo server on a worker; yield its port."""
    port = free_port()
    command = [sys.executable, "-m", "tests.receiver.worker.echo", str(port), worker, *settings]
    with subprocess.Popen(command) as process:
        try:
            until(lambda: _listens(port), "the server does not listen")
            yield port
        finally:
            process.terminate()


def _listens(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def converse(port: int, pieces: Sequence[bytes]) -> list[str]:
    """Send *pieces*, then LAST; return each response as `status body`, and how the connection ended."""
    received = b""
    with socket.create_connection(("127.0.0.1", port), timeout=TIMEOUT_SECONDS) as client:
        client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        ended = "closed"
        try:
            with suppress(ConnectionError):  # the server answered and closed before everything was sent
                for piece in (*pieces, LAST):
                    client.sendall(piece)
            while piece := client.recv(65536):
                received += piece
        except TimeoutError:
            ended = "silent"
        except ConnectionError:
            ended = "closed"
    return [*answers_in(received), ended]


def answers_in(received: bytes) -> list[str]:
    """Split received bytes into responses; the last one may be bytes that are not a response."""
    answers = []
    while received:
        head, end, rest = received.partition(b"\r\n\r\n")
        lines = head.decode("latin-1").split("\r\n")
        if not end or not lines[0].startswith("HTTP/1."):
            return [*answers, f"no answer: {received[:80]!r}"]
        status = lines[0].split(" ", 1)[1][:3]
        if status == "100":
            answers.append("100")
            received = rest
            continue
        fields = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines[1:])}
        length = int(fields.get("content-length", "0"))
        if length > len(rest) or (rest.startswith(b"HTTP/1.") and length):
            length = 0  # the response to a HEAD
        body = rest[:length].decode("latin-1")
        answers.append(f"{status} {body}" if status == "200" and body else status)
        received = rest[length:]
    return answers
