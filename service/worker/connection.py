"""One connection: its bytes under deadlines, its requests as environs, its answers."""

import time
from contextlib import suppress
from email.utils import formatdate
from functools import lru_cache
from typing import Any, Final

import gevent
import gunicorn.config
from gevent import socket
from gunicorn import util
from gunicorn.http import wsgi
from gunicorn.http.errors import LimitRequestHeaders
from gunicorn.http.message import Request
from gunicorn.http.unreader import SocketUnreader

LINGER_SECONDS: Final = 2.0
LINGER_BYTES: Final = 8 * 1024 * 1024
HEAD_BYTES: Final = 32_768  # of a request's line and headers; what a parser takes again and again must stay small
BREATH: Final = 0.0001  # seconds; with none, gevent may go on for fifty turns before it looks at sockets
TURN: Final = 0.005  # seconds after which a connection whose bytes never let it wait lets others go first


class Stopping(BaseException):
    """Thrown into a connection that waits for its next request."""


class Unread(OSError):
    """The client does not read its answer; a second one must not follow into the middle of it."""


class Reader(SocketUnreader):
    """Reads a connection's bytes under deadlines: one for the first byte of a request, one for all that follow.

    It holds every part of a request to a number of bytes, and gives way to others however fast its bytes come.
    """

    def __init__(
        self, client: socket.socket, patience: float, keepalive: float, idle: dict[socket.socket, None]
    ) -> None:
        """*idle* is where it enters itself while nobody would miss it; *patience* and *keepalive* are seconds."""
        super().__init__(client)
        self._patience = patience
        self._keepalive = keepalive
        self._idle = idle
        self._first_wait = patience
        self._turn = time.monotonic()
        self._left = HEAD_BYTES
        self.dismissed = False
        self.deadline: float | None = None

    @property
    def began(self) -> bool:
        """Say whether the first byte of the present request came."""
        return self.deadline is not None

    def expect_next(self) -> None:
        """Wait for another request; what of it was pipelined counts as begun."""
        now = time.monotonic()
        self._first_wait = self._keepalive
        self._left = HEAD_BYTES
        self.deadline = now + self._patience if self.buf.tell() else None
        self._give_way(now)

    def expect_body(self, most: int) -> None:
        """Take *most* bytes more of this request: framing, chunks and trailers count."""
        self._left = most

    def chunk(self, size_hint: int | None = None) -> bytes:
        """Receive what there is; raises TimeoutError at the deadline, LimitRequestHeaders where it is too much."""
        if self.deadline is None:
            return self._counted(self._first_chunk())
        now = time.monotonic()
        if now >= self.deadline:  # a socket that has bytes does not look at its timeout
            raise TimeoutError
        self._give_way(now)
        self.sock.timeout = self.deadline - now
        return self._counted(super().chunk(size_hint))

    def _counted(self, piece: bytes) -> bytes:
        self._left -= len(piece)
        if self._left < 0:
            raise LimitRequestHeaders("more than a request may take")
        return piece

    def _give_way(self, now: float) -> None:
        if now - self._turn > TURN:
            gevent.sleep(BREATH)
            self._turn = time.monotonic()

    def _first_chunk(self) -> bytes:
        self.sock.timeout = self._first_wait
        self._idle[self.sock] = None
        try:
            piece: bytes = super().chunk()
        except Stopping:
            self.dismissed = True
            self.sock.timeout = 0.0  # nobody is kept waiting, but what has come is answered
            try:
                piece = super().chunk()
            except BlockingIOError:
                raise Stopping from None
        finally:
            self._idle.pop(self.sock, None)
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
        "REMOTE_ADDR": addr[0],
        "REMOTE_PORT": str(addr[1]),
        "gunicorn.socket": client,
    }


def environ_of(request: Request, connection: dict[str, Any]) -> dict[str, Any]:
    """Make the environ of a request on what its connection shares."""
    environ = connection.copy()
    environ["REQUEST_METHOD"] = request.method
    environ["PATH_INFO"] = util.unquote_to_wsgi_str(request.path)
    environ["QUERY_STRING"] = request.query
    environ["SERVER_PROTOCOL"] = "HTTP/{}.{}".format(*request.version)
    environ["wsgi.url_scheme"] = request.scheme
    environ["wsgi.input"] = request.body
    for name, value in request.headers:
        key = name.replace("-", "_")
        if key not in ("CONTENT_TYPE", "CONTENT_LENGTH"):
            key = f"HTTP_{key}"
        environ[key] = f"{environ[key]},{value}" if key in environ else value
    return environ


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
        lines = [f"HTTP/1.1 {self._status}", f"Date: {_date(int(time.time()))}"]
        lines.append("Connection: close" if close else "Connection: keep-alive")
        lines += [f"{name}: {value}" for name, value in self._headers]
        return ("\r\n".join(lines) + "\r\n\r\n").encode("latin-1")


@lru_cache(maxsize=1)
def _date(second: int) -> str:
    return formatdate(second, usegmt=True)


def send(client: socket.socket, answer: bytes) -> None:
    """Send all of *answer*; raises Unread where the client does not take it in time."""
    try:
        sent = client.send(answer)  # an answer fits in the kernel's buffer; sendall would ask for its size first
        if sent < len(answer):
            client.sendall(answer[sent:])
    except TimeoutError as ex:
        raise Unread from ex


def asks_to_close(connection: str) -> bool:
    """Say whether the header `Connection` asks for it, be it beside other words."""
    return "close" in (word.strip() for word in connection.lower().split(","))


def is_read(request: Request) -> bool:
    """Say whether the body was read to its end, so that the next request starts where the reader stands."""
    reader = request.body.reader
    if request.body.failed:
        return False
    return not reader.length if hasattr(reader, "length") else reader.parser is None


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
