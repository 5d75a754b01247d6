"""The server's worker: gunicorn's gevent worker, patching nothing, with deadlines and a quiet face.

Only the sockets wait cooperatively; threads, locks, the exporters and the database client are the ordinary ones.
A connection is one greenlet, so that a stalled client costs that and no more.
"""

import time
from contextlib import suppress
from email.utils import formatdate
from functools import lru_cache, partial
from types import SimpleNamespace
from typing import Any, Final, Protocol

import gevent
import gunicorn.config
from gevent import socket
from gevent.pool import Pool
from gevent.server import StreamServer
from gunicorn import util
from gunicorn.http import errors, wsgi
from gunicorn.http.message import Request
from gunicorn.http.unreader import SocketUnreader
from gunicorn.workers.ggevent import GeventWorker

from service import drain, logs
from service.config import Config
from service.webhook import READ_DEADLINE

LINGER_SECONDS: Final = 2.0
LINGER_BYTES: Final = 8 * 1024 * 1024
LOOK: Final = 0.25  # seconds between looks at the drain mark, and at how the stop gets on
TAKE_UP: Final = 0.1  # seconds in which, at the stop, connections that the kernel holds are still taken up
_STATUSES: Final[tuple[tuple[type[Exception], str], ...]] = (
    (errors.LimitRequestLine, "414 URI Too Long"),
    (errors.LimitRequestHeaders, "431 Request Header Fields Too Large"),
    (errors.ExpectationFailed, "417 Expectation Failed"),
    (errors.UnsupportedTransferCoding, "501 Not Implemented"),
    (errors.ParseException, "400 Bad Request"),
    (TimeoutError, "408 Request Timeout"),
)


class Configured(Protocol):
    """The gunicorn application that serves: it brings the configuration along."""

    config: Config


class _Stopping(BaseException):
    """Thrown into a connection that waits for its next request."""


class Worker(GeventWorker):
    """Answers every request whose first byte came, each within its time."""

    app: Configured
    sockets: list[Any]
    slot = 0  # which of the workers this is; the next one in its place has the same

    def patch(self) -> None:
        """Make the listening sockets cooperative, and nothing else."""
        self.sockets = [
            socket.socket(each.FAMILY, socket.SOCK_STREAM, fileno=each.sock.detach()) for each in self.sockets
        ]

    def init_process(self) -> None:
        """Prepare what connections share, then run."""
        config = self.app.config
        self._read_timeout = config.read_timeout
        self._run_dir = config.run_dir
        # gunicorn's settings look each value up at each use; what the parser asks for does not change.
        self._limits = SimpleNamespace(
            **{name: setting.get() for name, setting in self.cfg.settings.items()}, is_ssl=self.cfg.is_ssl
        )
        self._closing = False
        self._idle: set[socket.socket] = set()
        self._log = logs.get("server")
        self._floods = logs.Floods(self._log.warning)
        super().init_process()

    def run(self) -> None:
        """Serve until told to stop, then finish what began."""
        pool = Pool(self.worker_connections)
        servers = []
        for listener in self.sockets:
            listener.setblocking(1)
            server = StreamServer(listener, handle=partial(self.handle, listener), spawn=pool)
            if self.cfg.workers > 1:
                server.max_accept = 1  # leave connections to the other workers
            server.start()
            servers.append(server)
        while self.alive:
            self.notify()
            self._closing = drain.is_marked(self._run_dir)
            self._floods.flush()
            gevent.sleep(LOOK)
        self._closing = True
        gevent.sleep(TAKE_UP)
        for server in servers:
            server.close()
        self._finish(pool)
        self._floods.flush(force=True)

    def _finish(self, pool: Pool) -> None:
        hub = gevent.get_hub()
        for client in list(self._idle):
            # Reaches only who still waits when it is its turn: a request whose first byte came goes on.
            hub.cancel_wait(client._read_event, _Stopping())  # noqa: SLF001  gevent has no public name for it
        over = time.monotonic() + self.cfg.graceful_timeout
        while len(pool) and time.monotonic() < over:
            self.notify()
            pool.join(timeout=LOOK)
        if len(pool):
            self._log.warning("connections cut at the stop", connections=len(pool))
            pool.kill(timeout=1)

    def handle(self, listener: socket.socket, client: socket.socket, addr: tuple[Any, ...]) -> None:
        """Answer the requests of one connection, in order."""
        reader = _Reader(client, self._read_timeout, self.cfg.keepalive, self._idle)
        environ = _connection_environ(self.cfg, client, listener.getsockname(), addr)
        try:
            while self._answer(self._receive(reader), reader, client, environ):
                reader.expect_next()
        except (errors.NoMoreData, _Stopping):
            pass
        except (errors.ParseException, TimeoutError) as ex:
            if reader.began:
                self._refuse(client, ex)
        except OSError:
            pass  # the client is gone
        except Exception as ex:  # noqa: BLE001  one connection must not take the worker with it
            self._log.error("connection failed", exc_info=ex)
        finally:
            client.close()

    def _receive(self, reader: "_Reader") -> Request:
        # The peer is named, not given by its address: whom to trust with a proxy's headers is then not asked each time.
        return Request(self._limits, reader, "client")

    def _answer(self, request: Request, reader: "_Reader", client: socket.socket, connection: dict[str, Any]) -> bool:
        environ = _environ(request, connection)
        environ[READ_DEADLINE] = reader.deadline
        client.timeout = self._read_timeout  # a client that does not read is cut as well
        if request._expected_100_continue:  # noqa: SLF001  gunicorn's own servers look at it
            client.sendall(b"HTTP/1.1 100 Continue\r\n\r\n")
        answer = _Answer()
        body = b"".join(self.wsgi(environ, answer.start))
        whole = _is_read(request)
        close = self._closing or not self.alive or not whole or request.should_close()
        client.timeout = self._read_timeout  # the reader sets it as it goes
        _send(client, answer.written(close=close) + (b"" if request.method == "HEAD" else body))
        if not whole:
            _linger(client)
        return not close

    def _refuse(self, client: socket.socket, ex: Exception) -> None:
        status = next(status for kind, status in _STATUSES if isinstance(ex, kind))
        self._floods.add("request refused", status)
        text = f"{status[4:].lower()}\n".encode("ascii")
        answer = _Answer()
        answer.start(status, [("Content-Type", "text/plain"), ("Content-Length", str(len(text)))])
        client.settimeout(self._read_timeout)
        with suppress(OSError):
            client.sendall(answer.written(close=True) + text)
            _linger(client)


def _connection_environ(
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


def _environ(request: Request, connection: dict[str, Any]) -> dict[str, Any]:
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


class _Reader(SocketUnreader):
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
        except _Stopping:
            self.sock.timeout = 0.0  # nobody is kept waiting, but what has come is answered
            try:
                piece = super().chunk()
            except BlockingIOError:
                raise _Stopping from None
        finally:
            self._idle.discard(self.sock)
        self.deadline = time.monotonic() + self._patience
        return piece


class _Answer:
    """The head of an answer; it says nothing about the server."""

    __slots__ = ("_headers", "_status")

    def start(self, status: str, headers: list[tuple[str, str]], _raised: object = None) -> None:
        """Take status and headers: WSGI's `start_response`, for applications that return their body."""
        self._status = status
        self._headers = headers

    def written(self, *, close: bool) -> bytes:
        """Write the head."""
        lines = [f"HTTP/1.1 {self._status}", f"Date: {_date(int(time.time()))}"]
        lines.append("Connection: close" if close else "Connection: keep-alive")
        lines += [f"{name}: {value}" for name, value in self._headers]
        return ("\r\n".join(lines) + "\r\n\r\n").encode("latin-1")


@lru_cache(maxsize=1)
def _date(second: int) -> str:
    return formatdate(second, usegmt=True)


def _send(client: socket.socket, answer: bytes) -> None:
    sent = client.send(answer)  # an answer fits in the kernel's buffer; sendall would ask for its size first
    if sent < len(answer):
        client.sendall(answer[sent:])


def _is_read(request: Request) -> bool:
    """Say whether the body was read to its end, so that the next request starts where the reader stands."""
    reader = request.body.reader
    if request.body.failed:
        return False
    return not reader.length if hasattr(reader, "length") else reader.parser is None


def _linger(client: socket.socket) -> None:
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
