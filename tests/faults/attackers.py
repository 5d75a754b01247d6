"""Strangers, as a program: `python -m tests.faults.attackers KIND PORT CONNECTIONS PER_SECOND`, until it is killed.

They have no secret. Each connection that is cut is opened again, unless the kind says otherwise.
"""

import selectors
import socket
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from itertools import chain, repeat

FORGED = b"X-Hub-Signature-256: sha256=" + b"0" * 64 + b"\r\n"
POST = b"POST /webhooks HTTP/1.1\r\nHost: a\r\n" + FORGED
GET = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n"
Script = Callable[[], Iterator[bytes]]


def pipelines() -> Iterator[bytes]:
    """Requests of 28 bytes without an end, whose answers are read."""
    return repeat(GET * 500)


def chunks() -> Iterator[bytes]:
    """A body in chunks of one byte."""
    return chain([POST + b"Transfer-Encoding: chunked\r\n\r\n"], repeat(b"1\r\nx\r\n" * 2000))


def heads() -> Iterator[bytes]:
    """A head of nearly 32 kB that does not end."""
    return iter([b"GET / HTTP/1.1\r\nHost: a\r\n" + b"".join(b"X%d: %b\r\n" % (n, b"y" * 8000) for n in range(4))])


def bodies() -> Iterator[bytes]:
    """64 KiB of a body that does not end."""
    return iter([POST + b"Content-Length: 70000\r\n\r\n" + b"x" * 65_536])


def last_bytes() -> Iterator[bytes]:
    """Forged bodies of nearly 4 MiB; the last byte comes when all the others are there."""
    yield POST + b"Content-Length: 4194304\r\n\r\n"
    for _ in range(63):
        yield b"x" * 65_536
    yield b"x" * 65_535
    over = time.monotonic() + 1
    while time.monotonic() < over:
        yield b""
    yield b"x"


def drips() -> Iterator[bytes]:
    """A byte, and no more."""
    return iter([b"G"])


KINDS: dict[str, Script] = {each.__name__: each for each in (pipelines, chunks, heads, bodies, last_bytes, drips)}


class Stranger:
    """One connection, and what is still to be sent on it."""

    def __init__(self, port: int, script: Script) -> None:
        self.socket = socket.socket()
        self.socket.setblocking(False)
        with suppress(BlockingIOError):
            self.socket.connect(("127.0.0.1", port))
        self._script = script()
        self._left = b""
        self.has_more = True

    def send(self) -> None:
        if not self._left:
            self._left = next(self._script, b"")
            self.has_more = bool(self._left) or (self.has_more and self._script.__class__.__name__ == "generator")
        if self._left:
            self._left = self._left[self.socket.send(self._left) :]

    def read(self) -> bool:
        with suppress(BlockingIOError):
            return bool(self.socket.recv(1 << 16))
        return True


class Attack:
    """Holds so many connections; with *per_second* opens so many each second, whatever becomes of them."""

    def __init__(self, kind: str, port: int, connections: int, per_second: float) -> None:
        self._begin = lambda: Stranger(port, KINDS[kind])
        self._connections = connections
        self._per_second = per_second
        self._selector = selectors.DefaultSelector()

    def run(self) -> None:
        began, opened = time.monotonic(), 0
        while True:
            wanted = (time.monotonic() - began) * self._per_second if self._per_second else self._connections
            while opened < wanted:
                opened += 1
                self._open()
            for key, events in self._selector.select(0.01):
                self._go_on(key.data, events)

    def _open(self) -> None:
        stranger = self._begin()
        self._selector.register(stranger.socket, selectors.EVENT_READ | selectors.EVENT_WRITE, stranger)

    def _go_on(self, stranger: Stranger, events: int) -> None:
        try:
            if events & selectors.EVENT_WRITE:
                stranger.send()
                if not stranger.has_more:
                    self._selector.modify(stranger.socket, selectors.EVENT_READ, stranger)
            if events & selectors.EVENT_READ and not stranger.read():
                self._end(stranger)
        except OSError:
            self._end(stranger)

    def _end(self, stranger: Stranger) -> None:
        self._selector.unregister(stranger.socket)
        stranger.socket.close()
        if not self._per_second:
            self._open()


if __name__ == "__main__":
    Attack(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), float(sys.argv[4])).run()
