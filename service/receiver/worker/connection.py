"""One connection: reads its requests under deadlines, and writes its responses."""

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
from service.receiver.worker.busy_connections import TurnQueue
from service.receiver.worker.http_parser import Parser
from service.receiver.worker.request import BAD, Request, RequestRefused
from service.receiver.worker.slow_connections import WINDOW_SECONDS, WaitingConnections

LINGER_SECONDS: Final = 2.0
LINGER_BYTES: Final = 8 * 1024 * 1024
RECEIVE_BYTES: Final = 16_384  # bytes per recv
TURN_SECONDS: Final = 0.001  # a connection that runs longer without waiting is busy, and queues for its next turn


class CloseIdle(BaseException):
    """Raised in a connection that waits for its next request, to close it."""


class Evicted(BaseException):
    """Raised in a connection that waits for more of a request: others need its slot or its memory."""


class ResponseNotRead(OSError):
    """The client did not read the response in time; no other response may be sent, as this one is incomplete."""


class Connection:
    """The requests of one connection, in order: one deadline for the first byte of each, one for all bytes after it.

    The size of every part of a request is limited. A busy connection (its bytes arrive without a pause, or its last
    request was rejected) queues for its turn, so that others are served first. A slow one may be evicted.
    """

    def __init__(
        self,
        client: socket.socket,
        shared: dict[str, Any],
        *,
        read_timeout: float,
        keepalive: float,
        max_raw_body_bytes: int,
        max_field_bytes: int,
        waiting: WaitingConnections,
        turns: TurnQueue,
    ) -> None:
        """*shared* is in the environ of every request; *read_timeout* and *keepalive* are in seconds.

        *max_raw_body_bytes* limits a body with its framing.
        """
        self._client = client
        self._parser = Parser(shared, self._pull, max_field_bytes=max_field_bytes)
        self._read_timeout = read_timeout
        self._keepalive = keepalive
        self._max_raw_body_bytes = max_raw_body_bytes
        self._waiting = waiting
        self._turns = turns
        self._idle_timeout = read_timeout
        self._loop = gevent.get_hub().loop
        self._iteration = (0, 0.0)  # of the loop, and when this connection first ran in it
        self._is_busy = False
        self._turn = -1  # the iteration of the loop in which this connection last had a turn
        self._left = max_raw_body_bytes
        self._window_start = 0.0  # of the current one-second window
        self._moved = self._moved_before = 0  # bytes received in the current window, and in the one before
        self.held = 0
        self.is_evicted = False
        self.has_head = False
        self.is_answered = False
        self.close_requested = False
        self.deadline: float | None = None

    @property
    def has_started(self) -> bool:
        """Return whether the first byte of the current request has arrived."""
        return self.deadline is not None

    @property
    def has_request(self) -> bool:
        """Return whether a request with a complete head has no response yet."""
        return bool(self._parser.requests)

    def moved(self, now: float) -> int:
        """Return the bytes received in about the last second."""
        if now - self._window_start < WINDOW_SECONDS:
            return self._moved + self._moved_before
        return self._moved if now - self._window_start < 2 * WINDOW_SECONDS else 0

    def evict(self) -> None:
        """Abort the incomplete request, or the wait for the next one; see `WaitingConnection`."""
        raised: BaseException = CloseIdle()
        if self.has_started:
            self.is_evicted = True
            raised = Evicted()
        # This has an effect only if the connection still waits when the loop runs the callback.
        gevent.get_hub().cancel_wait(self._client._read_event, raised)  # noqa: SLF001  gevent has no public name for it

    def next(self) -> Request | None:
        """Wait for a request's head; return None if the client closed the connection between requests.

        Raises RequestRefused, TimeoutError, CloseIdle, Evicted, or OSError if the client disconnected.
        """
        parser = self._parser
        self._parse_rest()
        if parser.is_between:  # an empty line after the last request does not start another one
            self.deadline = None
        while not parser.requests:
            if parser.refused:
                raise RequestRefused(*parser.refused)
            if not self._receive():
                if parser.is_between:
                    return None
                raise RequestRefused(BAD)
        self._left = self._max_raw_body_bytes
        self.has_head = True
        request = parser.requests.popleft()
        if request.is_complete:
            self._waiting.remove_incomplete(self)
        return request

    def close(self) -> None:
        """Free the memory; the caller closes the socket."""
        self._waiting.remove(self)
        self._parser.close()

    def expect_next(self, *, was_refused: bool) -> None:
        """Prepare for the next request, which may be pipelined; *was_refused*: whether the last one was rejected."""
        self._waiting.remove_incomplete(self)
        self._waiting.release(self)
        self._parser.forget()
        self.has_head = False
        self._is_busy = self._is_busy or was_refused
        self._idle_timeout = self._keepalive
        self.deadline = None if self._parser.is_between else time.monotonic() + self._read_timeout

    def linger(self) -> None:
        """Do a lingering close: closing with unread bytes would send a reset, so that the client loses the response."""
        client, left = self._client, LINGER_BYTES
        now = time.monotonic()
        end = self.deadline = now + LINGER_SECONDS
        self.is_evicted = self.has_head = False
        self.is_answered = True
        self._waiting.release(self)
        self._waiting.add_lingering(self, now)
        with suppress(OSError, Evicted):
            client.shutdown(socket.SHUT_WR)
            while left > 0 and not self.is_evicted and (timeout := end - time.monotonic()) > 0:
                client.settimeout(timeout)
                piece = client.recv(65536)
                if not piece:
                    return
                left -= len(piece)
                self._count(len(piece), time.monotonic())

    def _pull(self, request: Request) -> None:
        """Wait for more of the body of *request*; send 100 Continue first if the client expects it."""
        if self._parser.refused:
            raise RequestRefused(*self._parser.refused)
        if request.expects:
            request.expects = False
            send(self._client, b"HTTP/1.1 100 Continue\r\n\r\n")
        try:
            received = self._receive()
        except Evicted:
            raise Overloaded from None
        self._left -= received
        if not received or self._left < 0:
            raise RequestRefused(BAD)
        if request.is_complete:
            self._waiting.remove_incomplete(self)

    def _receive(self) -> int:
        """Receive bytes and feed them to the parser; return how many, 0 at the end of the stream."""
        if self.deadline is None:
            piece = self._first_piece()
        else:
            now = time.monotonic()
            if now >= self.deadline:  # a socket with bytes to read ignores its timeout
                raise TimeoutError
            self._waiting.add_incomplete(self, now)
            self._client.timeout = self.deadline - now
            try:
                piece = self._client.recv(RECEIVE_BYTES)
            except CloseIdle:  # the connection was idle when it was raised, and is not any more
                self.close_requested = True
                return self._receive()
        if piece:
            now = time.monotonic()
            self._count(len(piece), now)
            self._take_turn(now)
            self._parser.feed(piece)
            self._end_turn()
        return len(piece)

    def _parse_rest(self) -> None:
        """Parse bytes that were received with an earlier request."""
        if not self._parser.is_between:
            self._take_turn(time.monotonic())
            self._parser.go_on()
            self._end_turn()

    def _take_turn(self, now: float) -> None:
        """Queue for a turn if this connection is busy and its current turn is over."""
        iteration, since = self._iteration
        if self._is_busy and (
            iteration != self._turn or iteration != self._loop.iteration or now - since > TURN_SECONDS
        ):
            self._turns.wait()
            self._is_busy = False
            self._turn = self._loop.iteration
            now = time.monotonic()
            if self.deadline is not None and now >= self.deadline:
                raise TimeoutError
        if iteration != self._loop.iteration:  # the connection has waited meanwhile
            self._iteration = self._loop.iteration, now
        if self.is_evicted:
            raise Evicted

    def _end_turn(self) -> None:
        iteration, since = self._iteration
        if iteration == self._loop.iteration and time.monotonic() - since > TURN_SECONDS:
            self._is_busy = True
        if not self._waiting.hold(self, self._parser.held):
            self.is_evicted = True
            raise Evicted

    def _count(self, size: int, now: float) -> None:
        if now - self._window_start >= WINDOW_SECONDS:
            self._moved_before = self._moved if now - self._window_start < 2 * WINDOW_SECONDS else 0
            self._window_start, self._moved = now, 0
        self._moved += size

    def _first_piece(self) -> bytes:
        client = self._client
        client.timeout = (
            None  # `close_expired` closes it: one check of all connections costs less than a timer for each
        )
        self._waiting.add_idle(self, time.monotonic() + self._idle_timeout)
        try:
            client._wait(client._read_event)  # noqa: SLF001  recv first would nearly always block, at twice the cost
            piece: bytes = client.recv(RECEIVE_BYTES)
        except CloseIdle:
            self.close_requested = True
            client.timeout = 0.0  # do not wait, but answer a request that has already arrived
            try:
                piece = client.recv(RECEIVE_BYTES)
            except BlockingIOError:
                raise CloseIdle from None
        finally:
            self._waiting.remove_idle(self)
        self.deadline = time.monotonic() + self._read_timeout
        return piece


def connection_environ(
    cfg: gunicorn.config.Config, client: socket.socket, server: tuple[Any, ...], addr: tuple[Any, ...]
) -> dict[str, Any]:
    """Return the part of the environ that all requests of a connection share."""
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
    """The head of a response, without a Server header."""

    __slots__ = ("_headers", "_status")

    def start(self, status: str, headers: list[tuple[str, str]], _raised: object = None) -> None:
        """Set status and headers: WSGI's `start_response`, for applications that return their body."""
        self._status = status
        self._headers = headers

    @property
    def status(self) -> str:
        """Return the status with its reason phrase."""
        return self._status

    @property
    def is_final(self) -> bool:
        """Return whether the connection must close, because the request may not have been read to its end."""
        return self._status.startswith(("400", "408", "413"))

    def encode(self, *, close: bool) -> bytes:
        """Return the head as bytes."""
        return _encode(self._status, tuple(self._headers), int(time.time()), close)


@lru_cache(maxsize=32)  # most responses within a second have the same head
def _encode(status: str, headers: tuple[tuple[str, str], ...], second: int, close: bool) -> bytes:  # noqa: FBT001  for the cache
    lines = [f"HTTP/1.1 {status}", f"Date: {formatdate(second, usegmt=True)}"]
    lines.append("Connection: close" if close else "Connection: keep-alive")
    lines += [f"{name}: {value}" for name, value in headers]
    return ("\r\n".join(lines) + "\r\n\r\n").encode("latin-1")


def send(client: socket.socket, response: bytes) -> None:
    """Send all of *response*; raise ResponseNotRead if the client does not read it in time."""
    try:
        sent = client.send(response)  # nearly always all of it; sendall would first query the buffer size
        if sent < len(response):
            client.sendall(response[sent:])
    except TimeoutError as ex:
        raise ResponseNotRead from ex
