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

from service.errors import Overloaded
from service.loopback import unmapped
from service.receiver.worker.busy_connections import Places
from service.receiver.worker.http_parser import Parser
from service.receiver.worker.request import BAD, Request, RequestRefused
from service.receiver.worker.slow_connections import WINDOW_SECONDS, Waiting

LINGER_SECONDS: Final = 2.0
LINGER_BYTES: Final = 8 * 1024 * 1024
RECEIVED_BYTES: Final = 16_384  # bytes received at once
TURN_SECONDS: Final = 0.001  # after which a connection whose bytes never let it wait lets others go first


class Stopping(BaseException):
    """Thrown into a connection that waits for its next request, where it is to wait no longer."""


class GaveWay(BaseException):
    """Thrown into a connection that waits for more of a request: others need its place, or its memory."""


class Unread(OSError):
    """The client does not read its answer; a second one must not follow into the middle of it."""


class Connection:
    """The requests of one connection, in order: one deadline for the first byte of each, one for all that follow.

    It holds every part of a request to a number of bytes. If its bytes never let it wait, or its last request was
    refused, it waits for a place, so that everybody else goes first; and it gives way if it is slow.
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
        waiting: Waiting,
        places: Places,
    ) -> None:
        """*shared* is of all environs; *patience* and *keepalive* are seconds."""
        self._client = client
        self._parser = Parser(shared, self._pull, max_field_bytes=max_field_bytes)
        self._patience = patience
        self._keepalive = keepalive
        self._most_of_body = most_of_body
        self._waiting = waiting
        self._places = places
        self._first_wait = patience
        self._loop = gevent.get_hub().loop
        self._turn = (0, 0.0)  # of the loop, and when this connection was first seen in it
        self._is_busy = False
        self._place = -1  # the turn of the loop in which this connection had one
        self._left = most_of_body
        self._window = 0.0  # when the present second of counting began
        self._moved = self._moved_before = 0  # bytes in it, and in the one before
        self.held = 0
        self.gave_way = False
        self.has_head = False
        self.is_answered = False
        self.dismissed = False
        self.deadline: float | None = None

    @property
    def began(self) -> bool:
        """Say whether the first byte of the present request came."""
        return self.deadline is not None

    @property
    def has_request(self) -> bool:
        """Return whether the head of a request came that nobody has answered yet."""
        return bool(self._parser.requests)

    def moved(self, now: float) -> int:
        """Return the bytes that came in about the last second."""
        if now - self._window < WINDOW_SECONDS:
            return self._moved + self._moved_before
        return self._moved if now - self._window < 2 * WINDOW_SECONDS else 0

    def give_way(self) -> None:
        """End the request that is not complete, or the wait for the next one; see `Waiter`."""
        raised: BaseException = Stopping()
        if self.began:
            self.gave_way = True
            raised = GaveWay()
        # Reaches only who still waits when it is its turn.
        gevent.get_hub().cancel_wait(self._client._read_event, raised)  # noqa: SLF001  gevent has no public name for it

    def next(self) -> Request | None:
        """Wait for a request's head; None where the client closed between two.

        Raises RequestRefused, TimeoutError, Stopping, GaveWay, or OSError where the client is gone.
        """
        parser = self._parser
        self._go_on()
        if parser.is_between:  # an empty line behind the last request begins none
            self.deadline = None
        while not parser.requests:
            if parser.refused:
                raise RequestRefused(*parser.refused)
            if not self._receive():
                if parser.is_between:
                    return None
                raise RequestRefused(BAD)
        self._left = self._most_of_body
        self.has_head = True
        request = parser.requests.popleft()
        if request.is_complete:
            self._waiting.finished(self)
        return request

    def close(self) -> None:
        """Free the memory; the socket is its opener's to close."""
        self._waiting.gone(self)
        self._parser.close()

    def expect_next(self, *, was_refused: bool) -> None:
        """Wait for another request; what of it was pipelined counts as begun. The last one *was_refused* or not."""
        self._waiting.finished(self)
        self._waiting.release(self)
        self._parser.forget()
        self.has_head = False
        self._is_busy = self._is_busy or was_refused
        self._first_wait = self._keepalive
        self.deadline = None if self._parser.is_between else time.monotonic() + self._patience

    def linger(self) -> None:
        """Let the client read the answer before the connection goes: closing over unread bytes would reset it."""
        client, left = self._client, LINGER_BYTES
        now = time.monotonic()
        over = self.deadline = now + LINGER_SECONDS
        self.gave_way = self.has_head = False
        self.is_answered = True
        self._waiting.release(self)
        self._waiting.lingers(self, now)
        with suppress(OSError, GaveWay):
            client.shutdown(socket.SHUT_WR)
            while left > 0 and not self.gave_way and (patience := over - time.monotonic()) > 0:
                client.settimeout(patience)
                piece = client.recv(65536)
                if not piece:
                    return
                left -= len(piece)
                self._count(len(piece), time.monotonic())

    def _pull(self, request: Request) -> None:
        """Wait for more of the body of *request*, and say so to a client that waits to be asked."""
        if self._parser.refused:
            raise RequestRefused(*self._parser.refused)
        if request.expects:
            request.expects = False
            send(self._client, b"HTTP/1.1 100 Continue\r\n\r\n")
        try:
            received = self._receive()
        except GaveWay:
            raise Overloaded from None
        self._left -= received
        if not received or self._left < 0:
            raise RequestRefused(BAD)
        if request.is_complete:
            self._waiting.finished(self)

    def _receive(self) -> int:
        """Feed the parser with what there is; gives how many bytes, none at the end."""
        if self.deadline is None:
            piece = self._first_piece()
        else:
            now = time.monotonic()
            if now >= self.deadline:  # a socket that has bytes does not look at its timeout
                raise TimeoutError
            self._waiting.unfinished(self, now)
            self._client.timeout = self.deadline - now
            try:
                piece = self._client.recv(RECEIVED_BYTES)
            except Stopping:  # meant for a connection that is idle; this one no longer is
                self.dismissed = True
                return self._receive()
        if piece:
            now = time.monotonic()
            self._count(len(piece), now)
            self._take_turn(now)
            self._parser.feed(piece)
            self._end_turn()
        return len(piece)

    def _go_on(self) -> None:
        """Read on in what was received already."""
        if not self._parser.is_between:
            self._take_turn(time.monotonic())
            self._parser.go_on()
            self._end_turn()

    def _take_turn(self, now: float) -> None:
        """Wait for a place if this connection is a busy one; with one it may go on for the rest of a turn."""
        turn, since = self._turn
        if self._is_busy and (turn != self._place or turn != self._loop.iteration or now - since > TURN_SECONDS):
            self._places.wait()
            self._is_busy = False
            self._place = self._loop.iteration
            now = time.monotonic()
            if self.deadline is not None and now >= self.deadline:
                raise TimeoutError
        if turn != self._loop.iteration:  # it waited meanwhile, for whatever
            self._turn = self._loop.iteration, now
        if self.gave_way:
            raise GaveWay

    def _end_turn(self) -> None:
        turn, since = self._turn
        if turn == self._loop.iteration and time.monotonic() - since > TURN_SECONDS:
            self._is_busy = True
        if not self._waiting.hold(self, self._parser.held):
            self.gave_way = True
            raise GaveWay

    def _count(self, size: int, now: float) -> None:
        if now - self._window >= WINDOW_SECONDS:
            self._moved_before = self._moved if now - self._window < 2 * WINDOW_SECONDS else 0
            self._window, self._moved = now, 0
        self._moved += size

    def _first_piece(self) -> bytes:
        client = self._client
        client.timeout = None  # whose time is up is dismissed: a timer for each wait costs more than one look at all
        self._waiting.idle(self, time.monotonic() + self._first_wait)
        try:
            client._wait(client._read_event)  # noqa: SLF001  to try first is nearly always in vain, and costs as much again
            piece: bytes = client.recv(RECEIVED_BYTES)
        except Stopping:
            self.dismissed = True
            client.timeout = 0.0  # nobody is kept waiting, but what has come is answered
            try:
                piece = client.recv(RECEIVED_BYTES)
            except BlockingIOError:
                raise Stopping from None
        finally:
            self._waiting.began(self)
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


class ResponseHead:
    """The head of an answer; it says nothing about the server."""

    __slots__ = ("_headers", "_status")

    def start(self, status: str, headers: list[tuple[str, str]], _raised: object = None) -> None:
        """Take status and headers: WSGI's `start_response`, for applications that return their body."""
        self._status = status
        self._headers = headers

    @property
    def status(self) -> str:
        """Return the status, with its reason."""
        return self._status

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
