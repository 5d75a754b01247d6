"""One connection: its bytes under deadlines, its requests as environs, its answers."""

import time
from contextlib import suppress
from email.utils import formatdate
from functools import lru_cache
from typing import Any, Final

import gunicorn.config
from gevent import socket
from gunicorn import util
from gunicorn.http import wsgi
from gunicorn.http.message import Request
from gunicorn.http.unreader import SocketUnreader

LINGER_SECONDS: Final = 2.0
LINGER_BYTES: Final = 8 * 1024 * 1024


class Stopping(BaseException):
    """Thrown into a connection that waits for its next request."""


class Reader(SocketUnreader):
    """Reads a connection's bytes under deadlines: one for the first byte of a request, one for all that follow."""

    def __init__(self, client: socket.socket, patience: float, keepalive: float, idle: set[socket.socket]) -> None:
        super().__init__(client)
        self._patience = patience
        self._keepalive = keepalive
        self._idle = idle
        self._first_wait = patience
        self.deadline: float | None = None

    @property
    def began(self) -> bool:
        """Say whether the first byte of the present request came."""
        return self.deadline is not None

    def expect_next(self) -> None:
        """Wait for another request; what of it was pipelined counts as begun."""
        self._first_wait = self._keepalive
        self.deadline = time.monotonic() + self._patience if self.buf.tell() else None

    def chunk(self, size_hint: int | None = None) -> bytes:
        """Receive what there is; raises TimeoutError at the deadline."""
        if self.deadline is None:
            return self._first_chunk()
        self.sock.timeout = max(self.deadline - time.monotonic(), 0.001)
        piece: bytes = super().chunk(size_hint)
        return piece

    def _first_chunk(self) -> bytes:
        self.sock.timeout = self._first_wait
        self._idle.add(self.sock)
        try:
            piece: bytes = super().chunk()
        except Stopping:
            self.sock.timeout = 0.0  # nobody is kept waiting, but what has come is answered
            try:
                piece = super().chunk()
            except BlockingIOError:
                raise Stopping from None
        finally:
            self._idle.discard(self.sock)
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
    """Send all of *answer*."""
    sent = client.send(answer)  # an answer fits in the kernel's buffer; sendall would ask for its size first
    if sent < len(answer):
        client.sendall(answer[sent:])


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
