"""The worker: accepts connections, answers their requests, and shuts down gracefully."""

import signal
import sys
import time
from contextlib import suppress
from functools import partial
from typing import Any, Final, Protocol

import gevent
import gunicorn.config
from gevent import socket
from gevent.pool import Pool
from gevent.server import StreamServer
from gunicorn.workers.ggevent import GeventWorker

from service.config import Config
from service.errors import ConfigurationError
from service.receiver import drain_mark
from service.receiver.request_body import READ_DEADLINE
from service.receiver.responses import RETRY_AFTER
from service.receiver.worker.busy_connections import TurnQueue
from service.receiver.worker.connection import (
    LINGER_SECONDS,
    CloseIdle,
    Connection,
    Evicted,
    ResponseHead,
    ResponseNotRead,
    connection_environ,
    send,
)
from service.receiver.worker.memory_trim import MemoryTrim
from service.receiver.worker.request import Request, RequestRefused
from service.receiver.worker.slow_connections import SLOW_BYTES, WaitingConnection, WaitingConnections
from service.telemetry import logs

WORKER_IGNORED_SIGNALS: Final = (signal.SIGHUP, signal.SIGTTIN, signal.SIGTTOU, signal.SIGUSR2, signal.SIGWINCH)
STOP_INTERVAL_SECONDS: Final = 0.25  # between checks of the drain mark, and of the progress of a shutdown
SPARE_RAW_BYTES: Final = (
    131_072  # added to byte limits, for the framing of small chunks and for a head, which is held twice
)
STOP_GRACE_SECONDS: Final = 2.0  # left for the parts to stop, before the master kills the process
STOP_HEAD_SECONDS: Final = 1.0  # allowed at shutdown for an incomplete head, and for a slow body
STOP_BODY_SECONDS: Final = 3.0  # allowed at shutdown for a body that is not slow
STOP_ACCEPT_SECONDS: Final = 0.1  # at shutdown, connections in the kernel's queue are still accepted for this time


class Configured(Protocol):
    """The gunicorn application, which has the configuration."""

    config: Config


class Worker(GeventWorker):
    """Answers every request whose head is complete, each before its deadline."""

    app: Configured
    sockets: list[Any]
    alive: bool
    slot = 0  # the number of this worker; its replacement has the same one

    def patch(self) -> None:
        """Make only the listening sockets cooperative."""
        self.sockets = [
            socket.socket(each.FAMILY, socket.SOCK_STREAM, fileno=each.sock.detach()) for each in self.sockets
        ]

    @classmethod
    def check_config(cls, cfg: gunicorn.config.Config, _log: object) -> None:
        """Raise ConfigurationError if a setting of gunicorn is not supported by this worker."""
        problems = [
            f"{name}: this worker never trusts proxy headers; leave it {required}"
            for name, required, is_met in (
                ("proxy_protocol", "off", cfg.proxy_protocol == "off"),
                ("forwarded_allow_ips", "empty", not cfg.forwarded_allow_ips),
            )
            if not is_met
        ]
        if problems:
            raise ConfigurationError(problems)

    def init_signals(self) -> None:
        """Ignore the signals that the master ignores: a terminal that closes sends them to the whole process group."""
        super().init_signals()
        for number in WORKER_IGNORED_SIGNALS:
            signal.signal(number, signal.SIG_IGN)

    def init_process(self) -> None:
        """Set up the state that connections share, then run."""
        config = self.app.config
        self._read_timeout = config.read_timeout
        self._run_dir = config.run_dir
        # The commit thread needs the interpreter only for moments: it must not wait 5 ms, the default, each time.
        sys.setswitchinterval(0.0005)
        self._closing = False
        self._max_raw_body_bytes = 2 * config.max_body_bytes + SPARE_RAW_BYTES
        self._log = logs.get("server")
        self._rate_limited_log = logs.RateLimitedLog(self._log)
        gevent.get_hub().handle_error = self._loop_failed
        super().init_process()

    def _loop_failed(self, _context: object, kind: type[BaseException], raised: object, trace: object) -> None:
        """Log uncaught exceptions, such as an accept without a free file descriptor; gevent would print a traceback."""
        if issubclass(kind, gevent.get_hub().NOT_ERROR):
            return
        if issubclass(kind, OSError):
            self._rate_limited_log.add("connection not accepted", str(getattr(raised, "strerror", "") or kind.__name__))
        else:
            self._log.error("event loop error", exc_info=(kind, raised, trace))

    def run(self) -> None:
        """Serve until stopped, then finish the requests that have started."""
        pool = self._pool = Pool(self.worker_connections)
        self._turns = TurnQueue()
        self._waiting = WaitingConnections(
            capacity=self.worker_connections,
            bytes_limit=self.app.config.inflight_bytes + SPARE_RAW_BYTES,  # the largest body must fit with its head
            free=pool.free_count,
        )
        memory = MemoryTrim(lambda: self._waiting.held)
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
            self._closing = drain_mark.is_marked(self._run_dir)
            self._rate_limited_log.flush()
            self._waiting.make_room()
            self._waiting.close_expired()
            memory.check()
            gevent.sleep(STOP_INTERVAL_SECONDS)
        self._closing = True
        gevent.sleep(STOP_ACCEPT_SECONDS)
        for server in servers:
            server.close()
        self._finish(pool)
        self._rate_limited_log.flush(force=True)

    def _finish(self, pool: Pool) -> None:
        """Finish the open requests, and abort slow ones: with SQLite, no request is served until this process exits."""
        self._waiting.close_idle()
        started = time.monotonic()
        aborted = 0
        while len(pool) and time.monotonic() < started + self.cfg.graceful_timeout - STOP_GRACE_SECONDS:
            self.notify()
            pool.join(timeout=STOP_INTERVAL_SECONDS)
            aborted += self._waiting.abort(partial(_is_late, since=started, now=time.monotonic()))
        if aborted or len(pool):
            self._log.warning("connections aborted at shutdown", connections=aborted + len(pool))
        pool.kill(timeout=1)

    def handle(self, listener: socket.socket, client: socket.socket, addr: tuple[Any, ...]) -> None:
        """Answer the requests of one connection, in order."""
        self._waiting.make_room()
        connection = Connection(
            client,
            connection_environ(self.cfg, client, listener.getsockname(), addr),
            read_timeout=self._read_timeout,
            keepalive=self.cfg.keepalive,
            max_raw_body_bytes=self._max_raw_body_bytes,
            max_field_bytes=self.app.config.max_header_bytes,
            waiting=self._waiting,
            turns=self._turns,
        )
        try:
            self._serve_connection(connection, client)
        except CloseIdle:
            pass
        except ResponseNotRead:
            self._rate_limited_log.add("response not read", "timeout")
        except RequestRefused as ex:
            self._reject(connection, client, *ex.refusal)
        except TimeoutError:
            if connection.has_started:
                self._reject(connection, client, "408 Request Timeout")
        except OSError:
            pass  # the client disconnected
        except Exception as ex:  # noqa: BLE001  one connection must not crash the worker
            self._log.error("connection failed", exc_info=ex)
        finally:
            connection.close()
            client.close()

    def _serve_connection(self, connection: Connection, client: socket.socket) -> None:
        try:
            while request := connection.next():
                status, close = self._answer(request, connection, client)
                if close:
                    return
                connection.expect_next(was_refused=status.startswith("4"))
        except Evicted:
            if connection.has_request:
                self._reject(connection, client, "503 Service Unavailable")

    def _answer(self, request: Request, connection: Connection, client: socket.socket) -> tuple[str, bool]:
        """Answer a request; return the status, and whether the connection closes after it."""
        environ, request.environ = request.environ, {}  # the environ refers to the request: avoid a reference cycle
        environ[READ_DEADLINE] = connection.deadline
        client.timeout = self._read_timeout  # also for a client that does not read
        self._count_request()
        head = ResponseHead()
        result = self.wsgi(environ, head.start)
        try:
            body = b"".join(result)
        finally:
            if hasattr(result, "close"):
                result.close()
        is_complete = request.is_complete
        close = self._closing or not self.alive or connection.close_requested or not is_complete
        close = close or request.is_last or head.is_final
        client.timeout = self._read_timeout  # the connection has changed it meanwhile
        send(client, head.encode(close=close) + (b"" if environ["REQUEST_METHOD"] == "HEAD" else body))
        if not is_complete or request.is_last:
            connection.linger()
        return head.status, close

    def _count_request(self) -> None:
        self.nr += 1
        if self.nr >= self.max_requests and self.alive:
            self._log.info("worker reached max_requests and restarts", count=self.nr)
            self.alive = False

    def _reject(self, connection: Connection, client: socket.socket, status: str, reason: str = "") -> None:
        self._rate_limited_log.add("request rejected", reason or status)
        text = f"{status[4:].lower()}\n".encode("ascii")
        head = ResponseHead()
        retry_after = [("Retry-After", RETRY_AFTER)] if status.startswith("503") else []
        head.start(status, [("Content-Type", "text/plain"), ("Content-Length", str(len(text))), *retry_after])
        client.settimeout(LINGER_SECONDS)
        with suppress(OSError):
            client.sendall(head.encode(close=True) + text)
            connection.linger()


def _is_late(waiter: WaitingConnection, *, since: float, now: float) -> bool:
    """Return whether the time of an incomplete request is over, in a shutdown that started at *since*."""
    if not waiter.has_head:
        return now - since >= STOP_HEAD_SECONDS
    return now - since >= (STOP_BODY_SECONDS if waiter.moved(now) >= SLOW_BYTES else STOP_HEAD_SECONDS)
