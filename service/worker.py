"""The server's worker: gunicorn's gevent worker, patching nothing, with deadlines and a quiet face.

Only the sockets wait cooperatively; threads, locks, the exporters and the database client are the ordinary ones.
A connection is one greenlet, so that a stalled client costs that and no more.
"""

import time
from contextlib import suppress
from functools import partial
from typing import Any, Final, Protocol

import gevent
from gevent import socket
from gevent.pool import Pool
from gevent.server import StreamServer
from gunicorn.http import errors, wsgi
from gunicorn.http.message import Request
from gunicorn.http.parser import RequestParser
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
        self._closing = False
        self._idle: set[gevent.Greenlet] = set()
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
        for greenlet in list(self._idle):
            gevent.kill(greenlet, _Stopping, block=False)
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
        parser = RequestParser(self.cfg, client, addr)
        parser.unreader = reader
        server = listener.getsockname()
        try:
            while self._answer(next(parser), reader, client, addr, server):
                reader.expect_next()
        except (StopIteration, errors.NoMoreData, _Stopping):
            pass
        except (errors.ParseException, TimeoutError) as ex:
            if reader.began:
                self._refuse(client, ex)
        except OSError:
            pass  # the client is gone
        except Exception as ex:  # noqa: BLE001  one connection must not take the worker with it
            self._log.error("connection failed", exc_info=ex)  # noqa: TRY400  exc_info is given
        finally:
            client.close()

    def _answer(
        self, request: Request, reader: "_Reader", client: socket.socket, addr: tuple[Any, ...], server: tuple[Any, ...]
    ) -> bool:
        answer, environ = wsgi.create(request, client, addr, server, self.cfg, response_class=_Answer)
        environ[READ_DEADLINE] = reader.deadline
        body = self.wsgi(environ, answer.start_response)
        whole = _is_read(request)
        if self._closing or not self.alive or not whole:
            answer.force_close()
        client.settimeout(self._read_timeout)  # a client that does not read is cut as well
        answer.send(b"".join(body))
        if not whole:
            _linger(client)
        return not answer.should_close()

    def _refuse(self, client: socket.socket, ex: Exception) -> None:
        status = next(status for kind, status in _STATUSES if isinstance(ex, kind))
        self._floods.add("request refused", status)
        text = f"{status[4:].lower()}\n"
        head = f"HTTP/1.1 {status}\r\nConnection: close\r\nContent-Type: text/plain\r\nContent-Length: {len(text)}\r\n\r\n"
        client.settimeout(self._read_timeout)
        with suppress(OSError):
            client.sendall((head + text).encode("ascii"))
            _linger(client)


class _Reader(SocketUnreader):
    """Reads a connection's bytes under deadlines: one for the first byte of a request, one for all that follow."""

    def __init__(self, client: socket.socket, patience: float, keepalive: float, idle: set[gevent.Greenlet]) -> None:
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
        self.sock.settimeout(max(self.deadline - time.monotonic(), 0.001))
        piece: bytes = super().chunk(size_hint)
        return piece

    def _first_chunk(self) -> bytes:
        self.sock.settimeout(self._first_wait)
        waiting = gevent.getcurrent()
        self._idle.add(waiting)
        try:
            piece: bytes = super().chunk()
        except _Stopping:
            self._idle.discard(waiting)
            self.sock.settimeout(0)  # nobody is kept waiting, but what has come is answered
            try:
                piece = super().chunk()
            except BlockingIOError:
                raise _Stopping from None
        finally:
            self._idle.discard(waiting)
        self.deadline = time.monotonic() + self._patience
        return piece


class _Answer(wsgi.Response):
    """An answer that says nothing about the server, sent at once."""

    def default_headers(self) -> list[str]:
        """Give the status line and the headers of every answer."""
        return [line for line in super().default_headers() if not line.startswith("Server:")]

    def send(self, body: bytes) -> None:
        """Send head and body together."""
        lines = [*self.default_headers(), *(f"{name}: {value}\r\n" for name, value in self.headers), "\r\n"]
        head = "".join(lines).encode("latin-1")
        self.sock.sendall(head if self._omits_body else head + body)


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
