"""One connection: its bytes under deadlines, its requests, its answers."""

import time
from contextlib import suppress
from email.utils import formatdate
from functools import lru_cache
from typing import Any, Final

import gevent
import gunicorn.config
from gevent import socket
from gunicorn.http import wsgi

from service.loopback import unmapped
from service.worker.parsing import Parser
from service.worker.request import BAD, Refused, Request

LINGER_SECONDS: Final = 2.0
LINGER_BYTES: Final = 8 * 1024 * 1024
PIECE: Final = 16_384  # bytes received at once
BREATH: Final = 0.0001  # seconds; with none, gevent may go on for fifty turns before it looks at sockets
TURN: Final = 0.001  # seconds after which a connection whose bytes never let it wait lets others go first


class Stopping(BaseException):
    """Thrown into a connection that waits for its next request, where it is to wait no longer."""


class Unread(OSError):
    """The client does not read its answer; a second one must not follow into the middle of it."""


class Connection:
    """The requests of one connection, in order: one deadline for the first byte of each, one for all that follow.

    It holds every part of a request to a number of bytes, and gives way to others however fast its bytes come.
    """

    def __init__(
        self,
        client: socket.socket,
        shared: dict[str, Any],
        *,
        patience: float,
        keepalive: float,
        most_of_body: int,
        max_field_bytes: int,
        idle: dict[socket.socket, float],
    ) -> None:
        """*shared* is of all environs; *patience* and *keepalive* are seconds.

        *idle* is where the client is entered while nobody would miss it, with the time until which it may wait.
        """
        self._client = client
        self._parser = Parser(shared, self._pull, max_field_bytes=max_field_bytes)
        self._patience = patience
        self._keepalive = keepalive
        self._most_of_body = most_of_body
        self._idle = idle
        self._first_wait = patience
        self._loop = gevent.get_hub().loop
        self._turn = (0, 0.0)  # of the loop, and when this connection was first seen in it
        self._left = most_of_body
        self.dismissed = False
        self.deadline: float | None = None

    @property
    def began(self) -> bool:
        """Say whether the first byte of the present request came."""
        return self.deadline is not None

    def next(self) -> Request | None:
        """Wait for a request's head; None where the client closed between two.

        Raises Refused, TimeoutError, Stopping, or OSError where the client is gone.
        """
        parser = self._parser
        parser.go_on()
        while not parser.requests:
            if parser.refused:
                raise Refused(*parser.refused)
            if not self._receive():
                if parser.is_between:
                    return None
                raise Refused(BAD)
        self._left = self._most_of_body
        return parser.requests.popleft()

    def close(self) -> None:
        """Free the memory; the socket is its opener's to close."""
        self._parser.close()

    def expect_next(self) -> None:
        """Wait for another request; what of it was pipelined counts as begun."""
        now = time.monotonic()
        self._first_wait = self._keepalive
        self._parser.go_on()
        is_idle = self._parser.is_between and not self._parser.requests
        self.deadline = None if is_idle else now + self._patience
        self._give_way(now)

    def _pull(self, request: Request) -> None:
        """Wait for more of the body of *request*, and say so to a client that waits to be asked."""
        if self._parser.refused:
            raise Refused(*self._parser.refused)
        if request.expects:
            request.expects = False
            send(self._client, b"HTTP/1.1 100 Continue\r\n\r\n")
        received = self._receive()
        self._left -= received
        if not received or self._left < 0:
            raise Refused(BAD)

    def _receive(self) -> int:
        """Feed the parser with what there is; gives how many bytes, none at the end."""
        if self.deadline is None:
            piece = self._first_piece()
        else:
            now = time.monotonic()
            if now >= self.deadline:  # a socket that has bytes does not look at its timeout
                raise TimeoutError
            self._give_way(now)
            self._client.timeout = self.deadline - now
            try:
                piece = self._client.recv(PIECE)
            except Stopping:  # meant for a connection that is idle; this one no longer is
                self.dismissed = True
                return self._receive()
        if piece:
            self._parser.feed(piece)
        return len(piece)

    def _give_way(self, now: float) -> None:
        turn, since = self._turn
        if turn != self._loop.iteration:  # it waited meanwhile, for whatever
            self._turn = self._loop.iteration, now
        elif now - since > TURN:
            gevent.sleep(BREATH)

    def _first_piece(self) -> bytes:
        client = self._client
        client.timeout = None  # whose time is up is dismissed: a timer for each wait costs more than one look at all
        self._idle[client] = time.monotonic() + self._first_wait
        try:
            client._wait(client._read_event)  # noqa: SLF001  to try first is nearly always in vain, and costs as much again
            piece: bytes = client.recv(PIECE)
        except Stopping:
            self.dismissed = True
            client.timeout = 0.0  # nobody is kept waiting, but what has come is answered
            try:
                piece = client.recv(PIECE)
            except BlockingIOError:
                raise Stopping from None
        finally:
            self._idle.pop(client, None)
        self.deadline = time.monotonic() + self._patience
        return piece


def connection_environ(
    cfg: gunicorn.config.Config, client: socket.socket, server: tuple[Any, ...], addr: tuple[Any, ...]
) -> dict[str, Any]:
    """Prepare what is the same for all requests of a connection."""
    return {
        **wsgi.base_environ(cfg),
        "SCRIPT_NAME": "",
        "SERVER_NAME": server[0],
        "SERVER_PORT": str(server[1]),
        "REMOTE_ADDR": unmapped(addr[0]),  # a dual-stack listener writes IPv4 as ::ffff:a.b.c.d
        "REMOTE_PORT": str(addr[1]),
        "gunicorn.socket": client,
        "wsgi.url_scheme": "http",
    }


class Answer:
    """The head of an answer; it says nothing about the server."""

    __slots__ = ("_headers", "_status")

    def start(self, status: str, headers: list[tuple[str, str]], _raised: object = None) -> None:
        """Take status and headers: WSGI's `start_response`, for applications that return their body."""
        self._status = status
        self._headers = headers

    @property
    def is_final(self) -> bool:
        """Say whether the client broke something, so that nothing more of it is read."""
        return self._status.startswith(("400", "408", "413"))

    def written(self, *, close: bool) -> bytes:
        """Write the head."""
        return _written(self._status, tuple(self._headers), int(time.time()), close)


@lru_cache(maxsize=32)  # most answers of a second are alike
def _written(status: str, headers: tuple[tuple[str, str], ...], second: int, close: bool) -> bytes:  # noqa: FBT001  for the cache
    lines = [f"HTTP/1.1 {status}", f"Date: {formatdate(second, usegmt=True)}"]
    lines.append("Connection: close" if close else "Connection: keep-alive")
    lines += [f"{name}: {value}" for name, value in headers]
    return ("\r\n".join(lines) + "\r\n\r\n").encode("latin-1")


def send(client: socket.socket, answer: bytes) -> None:
    """Send all of *answer*; raises Unread where the client does not take it in time."""
    try:
        sent = client.send(answer)  # an answer fits in the kernel's buffer; sendall would ask for its size first
        if sent < len(answer):
            client.sendall(answer[sent:])
    except TimeoutError as ex:
        raise Unread from ex


def linger(client: socket.socket) -> None:
    """Let the client read the answer before the connection goes: closing over unread bytes would reset it."""
    over = time.monotonic() + LINGER_SECONDS
    left = LINGER_BYTES
    with suppress(OSError):
        client.shutdown(socket.SHUT_WR)
        while left > 0 and (patience := over - time.monotonic()) > 0:
            client.settimeout(patience)
            piece = client.recv(65536)
            if not piece:
                return
            left -= len(piece)
