"""Attackers, as a program: `python -m tests.faults.attackers KIND PORT CONNECTIONS PER_SECOND`, until it is killed.

They have no secret. A connection that is closed is opened again, unless PER_SECOND is set.
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
    """Endless requests of 28 bytes, whose responses are read."""
    return repeat(GET * 500)


def chunks() -> Iterator[bytes]:
    """An endless body in chunks of one byte."""
    return chain([POST + b"Transfer-Encoding: chunked\r\n\r\n"], repeat(b"1\r\nx\r\n" * 2000))


def heads() -> Iterator[bytes]:
    """A head of nearly 32 kB that never ends."""
    return iter([b"GET / HTTP/1.1\r\nHost: a\r\n" + b"".join(b"X%d: %b\r\n" % (n, b"y" * 8000) for n in range(4))])


def bodies() -> Iterator[bytes]:
    """64 KiB of a body that never ends."""
    return iter([POST + b"Content-Length: 70000\r\n\r\n" + b"x" * 65_536])


def last_bytes() -> Iterator[bytes]:
    """Forged bodies of 4 MiB, whose last byte is sent a second after all the others."""
    yield POST + b"Content-Length: 4194304\r\n\r\n"
    for _ in range(63):
        yield b"x" * 65_536
    yield b"x" * 65_535
    end = time.monotonic() + 1
    while time.monotonic() < end:
        yield b""
    yield b"x"


def drips() -> Iterator[bytes]:
    """One byte, and nothing more."""
    return iter([b"G"])


KINDS: dict[str, Script] = {each.__name__: each for each in (pipelines, chunks, heads, bodies, last_bytes, drips)}


class Attacker:
    """One connection, and what is still to be sent on it."""

    def __init__(self, port: int, script: Script) -> None:
        self.socket = socket.socket()
        self.socket.setblocking(False)
        with suppress(BlockingIOError):
            self.socket.connect(("127.0.0.1", port))
        self._script = script()
        self._unsent = b""
        self.has_more = True

    def send(self) -> None:
        if not self._unsent:
            self._unsent = next(self._script, b"")
            self.has_more = bool(self._unsent) or (self.has_more and self._script.__class__.__name__ == "generator")
        if self._unsent:
            self._unsent = self._unsent[self.socket.send(self._unsent) :]

    def read(self) -> bool:
        with suppress(BlockingIOError):
            return bool(self.socket.recv(1 << 16))
        return True


class Attack:
    """Holds *connections* open; with *per_second*, opens so many each second instead, and replaces none."""

    def __init__(self, kind: str, port: int, connections: int, per_second: float) -> None:
        self._new_attacker = lambda: Attacker(port, KINDS[kind])
        self._connections = connections
        self._per_second = per_second
        self._selector = selectors.DefaultSelector()

    def run(self) -> None:
        started, opened = time.monotonic(), 0
        while True:
            target = (time.monotonic() - started) * self._per_second if self._per_second else self._connections
            while opened < target:
                opened += 1
                self._open()
            for key, events in self._selector.select(0.01):
                self._continue(key.data, events)

    def _open(self) -> None:
        attacker = self._new_attacker()
        self._selector.register(attacker.socket, selectors.EVENT_READ | selectors.EVENT_WRITE, attacker)

    def _continue(self, attacker: Attacker, events: int) -> None:
        try:
            if events & selectors.EVENT_WRITE:
                attacker.send()
                if not attacker.has_more:
                    self._selector.modify(attacker.socket, selectors.EVENT_READ, attacker)
            if events & selectors.EVENT_READ and not attacker.read():
                self._close(attacker)
        except OSError:
            self._close(attacker)

    def _close(self, attacker: Attacker) -> None:
        self._selector.unregister(attacker.socket)
        attacker.socket.close()
        if not self._per_second:
            self._open()


if __name__ == "__main__":
    Attack(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), float(sys.argv[4])).run()
