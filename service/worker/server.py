"""The worker: takes connections up, answers them, and stops in order."""

import sys
import time
from contextlib import suppress
from functools import partial
from types import SimpleNamespace
from typing import Any, Final, Protocol

import gevent
from gevent import socket
from gevent.pool import Pool
from gevent.server import StreamServer
from gunicorn.http import errors
from gunicorn.http.message import Request
from gunicorn.workers.ggevent import GeventWorker

from service import drain, logs
from service.config import Config
from service.webhook import READ_DEADLINE
from service.worker.connection import (
    LINGER_SECONDS,
    Answer,
    Reader,
    Stopping,
    Unread,
    asks_to_close,
    connection_environ,
    environ_of,
    is_read,
    linger,
    send,
)

LOOK: Final = 0.25  # seconds between looks at the drain mark, and at how the stop gets on
SPARE: Final = 65_536  # bytes on top of twice a body's: small bodies in small chunks
GRACE: Final = 2.0  # seconds that the parts have for their own stop, before the master ends the process
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
        # The thread that commits wants the interpreter for moments only: it must not wait 5 ms for each.
        sys.setswitchinterval(0.0005)
        self._closing = False
        self._idle: dict[socket.socket, None] = {}  # the longest first
        self._most_of_body = 2 * config.max_body_bytes + SPARE
        self._log = logs.get("server")
        self._floods = logs.Floods(self._log.warning)
        super().init_process()

    def run(self) -> None:
        """Serve until told to stop, then finish what began."""
        pool = self._pool = Pool(self.worker_connections)
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
            self._make_room()
            gevent.sleep(LOOK)
        self._closing = True
        gevent.sleep(TAKE_UP)
        for server in servers:
            server.close()
        self._finish(pool)
        self._floods.flush(force=True)

    def _finish(self, pool: Pool) -> None:
        for client in list(self._idle):
            self._dismiss(client)
        over = time.monotonic() + self.cfg.graceful_timeout - GRACE
        while len(pool) and time.monotonic() < over:
            self.notify()
            pool.join(timeout=LOOK)
        if len(pool):
            self._log.warning("connections cut at the stop", connections=len(pool))
            pool.kill(timeout=1)

    def _make_room(self) -> None:
        """Have who waits longest for nothing give way to who may have something."""
        if self._pool.full() and self._idle:
            self._dismiss(next(iter(self._idle)))

    def _dismiss(self, client: socket.socket) -> None:
        # Reaches only who still waits when it is its turn: a request whose first byte came goes on.
        gevent.get_hub().cancel_wait(client._read_event, Stopping())  # noqa: SLF001  gevent has no public name for it

    def handle(self, listener: socket.socket, client: socket.socket, addr: tuple[Any, ...]) -> None:
        """Answer the requests of one connection, in order."""
        self._make_room()
        reader = Reader(client, self._read_timeout, self.cfg.keepalive, self._idle)
        environ = connection_environ(self.cfg, client, listener.getsockname(), addr)
        try:
            while self._answer(self._receive(reader), reader, client, environ):
                reader.expect_next()
        except (errors.NoMoreData, StopIteration, Stopping):
            pass  # closed between requests, which gunicorn's parser says in two ways
        except Unread:
            self._floods.add("answer not read", "timeout")
        except (errors.ParseException, TimeoutError) as ex:
            if reader.began:
                self._refuse(client, ex)
        except OSError:
            pass  # the client is gone
        except Exception as ex:  # noqa: BLE001  one connection must not take the worker with it
            self._log.error("connection failed", exc_info=ex)
        finally:
            client.close()

    def _receive(self, reader: Reader) -> Request:
        # The peer is named, not given by its address: whom to trust with a proxy's headers is then not asked each time.
        return Request(self._limits, reader, "client")

    def _answer(self, request: Request, reader: Reader, client: socket.socket, connection: dict[str, Any]) -> bool:
        environ = environ_of(request, connection)
        reader.expect_body(self._most_of_body)
        environ[READ_DEADLINE] = reader.deadline
        client.timeout = self._read_timeout  # a client that does not read is cut as well
        if request._expected_100_continue:  # noqa: SLF001  gunicorn's own servers look at it
            send(client, b"HTTP/1.1 100 Continue\r\n\r\n")
        answer = Answer()
        body = b"".join(self.wsgi(environ, answer.start))
        whole = is_read(request)
        close = self._closing or not self.alive or reader.dismissed or not whole or answer.is_final
        close = close or request.should_close() or asks_to_close(environ.get("HTTP_CONNECTION", ""))
        client.timeout = self._read_timeout  # the reader sets it as it goes
        send(client, answer.written(close=close) + (b"" if request.method == "HEAD" else body))
        if not whole:
            linger(client)
        return not close

    def _refuse(self, client: socket.socket, ex: Exception) -> None:
        status = next(status for kind, status in _STATUSES if isinstance(ex, kind))
        self._floods.add("request refused", status)
        text = f"{status[4:].lower()}\n".encode("ascii")
        answer = Answer()
        answer.start(status, [("Content-Type", "text/plain"), ("Content-Length", str(len(text)))])
        client.settimeout(LINGER_SECONDS)
        with suppress(OSError):
            client.sendall(answer.written(close=True) + text)
            linger(client)
