"""The worker: takes connections up, answers them, and stops in order."""

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
from service.receiver.worker.busy_connections import Places
from service.receiver.worker.connection import (
    LINGER_SECONDS,
    Connection,
    GaveWay,
    ResponseHead,
    Stopping,
    Unread,
    connection_environ,
    send,
)
from service.receiver.worker.memory_trim import Memory
from service.receiver.worker.request import Request, RequestRefused
from service.receiver.worker.slow_connections import SLOW_BYTES, Waiter, Waiting
from service.telemetry import logs

WORKER_IGNORED_SIGNALS: Final = (signal.SIGHUP, signal.SIGTTIN, signal.SIGTTOU, signal.SIGUSR2, signal.SIGWINCH)
STOP_INTERVAL_SECONDS: Final = 0.25  # seconds between looks at the drain mark, and at how the stop gets on
SPARE_RAW_BYTES: Final = (
    131_072  # bytes on top of twice a body's: small bodies in small chunks; and of a head, held twice
)
STOP_GRACE_SECONDS: Final = 2.0  # seconds that the parts have for their own stop, before the master ends the process
STOP_HEAD_SECONDS: Final = 1.0  # seconds after the stop for a head that is not complete, and for a body that is slow
STOP_BODY_SECONDS: Final = 3.0  # seconds for a body that moves
STOP_ACCEPT_SECONDS: Final = 0.1  # seconds in which, at the stop, connections that the kernel holds are still taken up


class Configured(Protocol):
    """The gunicorn application that serves: it brings the configuration along."""

    config: Config


class Worker(GeventWorker):
    """Answers every request whose head came, each within its time."""

    app: Configured
    sockets: list[Any]
    alive: bool
    slot = 0  # which of the workers this is; the next one in its place has the same

    def patch(self) -> None:
        """Make the listening sockets cooperative, and nothing else."""
        self.sockets = [
            socket.socket(each.FAMILY, socket.SOCK_STREAM, fileno=each.sock.detach()) for each in self.sockets
        ]

    @classmethod
    def check_config(cls, cfg: gunicorn.config.Config, _log: object) -> None:
        """Refuse what this worker does not do, before anything starts; raises ConfigurationError."""
        problems = [
            f"{name}: this worker believes no proxy; leave it {wanted}"
            for name, wanted, is_so in (
                ("proxy_protocol", "off", cfg.proxy_protocol == "off"),
                ("forwarded_allow_ips", "empty", not cfg.forwarded_allow_ips),
            )
            if not is_so
        ]
        if problems:
            raise ConfigurationError(problems)

    def init_signals(self) -> None:
        """Ignore what the first process ignores: a terminal that closes tells the whole group."""
        super().init_signals()
        for number in WORKER_IGNORED_SIGNALS:
            signal.signal(number, signal.SIG_IGN)

    def init_process(self) -> None:
        """Prepare what connections share, then run."""
        config = self.app.config
        self._read_timeout = config.read_timeout
        self._run_dir = config.run_dir
        # The thread that commits wants the interpreter for moments only: it must not wait 5 ms for each.
        sys.setswitchinterval(0.0005)
        self._closing = False
        self._most_of_body = 2 * config.max_body_bytes + SPARE_RAW_BYTES
        self._log = logs.get("server")
        self._floods = logs.Floods(self._log)
        gevent.get_hub().handle_error = self._loop_failed
        super().init_process()

    def _loop_failed(self, _context: object, kind: type[BaseException], raised: object, trace: object) -> None:
        """Log what nobody caught, such as an accept without a file descriptor; gevent would write a raw traceback."""
        if issubclass(kind, gevent.get_hub().NOT_ERROR):
            return
        if issubclass(kind, OSError):
            self._floods.add("connection not accepted", str(getattr(raised, "strerror", "") or kind.__name__))
        else:
            self._log.error("loop failed", exc_info=(kind, raised, trace))

    def run(self) -> None:
        """Serve until told to stop, then finish what began."""
        pool = self._pool = Pool(self.worker_connections)
        self._places = Places()
        self._waiting = Waiting(
            places=self.worker_connections,
            bytes_limit=self.app.config.inflight_bytes + SPARE_RAW_BYTES,  # so that the largest body fits with its head
            free=pool.free_count,
        )
        memory = Memory(lambda: self._waiting.held)
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
            self._floods.flush()
            self._waiting.make_room()
            self._waiting.dismiss_late()
            memory.look()
            gevent.sleep(STOP_INTERVAL_SECONDS)
        self._closing = True
        gevent.sleep(STOP_ACCEPT_SECONDS)
        for server in servers:
            server.close()
        self._finish(pool)
        self._floods.flush(force=True)

    def _finish(self, pool: Pool) -> None:
        """Answer what can be, and have what is slow give way: with SQLite nobody is served until this process ends."""
        self._waiting.dismiss_idle()
        began = time.monotonic()
        cut = 0
        while len(pool) and time.monotonic() < began + self.cfg.graceful_timeout - STOP_GRACE_SECONDS:
            self.notify()
            pool.join(timeout=STOP_INTERVAL_SECONDS)
            cut += self._waiting.cut(partial(_is_late, since=began, now=time.monotonic()))
        if cut or len(pool):
            self._log.warning("connections cut at the stop", connections=cut + len(pool))
        pool.kill(timeout=1)

    def handle(self, listener: socket.socket, client: socket.socket, addr: tuple[Any, ...]) -> None:
        """Answer the requests of one connection, in order."""
        self._waiting.make_room()
        connection = Connection(
            client,
            connection_environ(self.cfg, client, listener.getsockname(), addr),
            patience=self._read_timeout,
            keepalive=self.cfg.keepalive,
            most_of_body=self._most_of_body,
            max_field_bytes=self.app.config.max_header_bytes,
            waiting=self._waiting,
            places=self._places,
        )
        try:
            self._converse(connection, client)
        except Stopping:
            pass
        except Unread:
            self._floods.add("answer not read", "timeout")
        except RequestRefused as ex:
            self._refuse(connection, client, *ex.refusal)
        except TimeoutError:
            if connection.began:
                self._refuse(connection, client, "408 Request Timeout")
        except OSError:
            pass  # the client is gone
        except Exception as ex:  # noqa: BLE001  one connection must not take the worker with it
            self._log.error("connection failed", exc_info=ex)
        finally:
            connection.close()
            client.close()

    def _converse(self, connection: Connection, client: socket.socket) -> None:
        try:
            while request := connection.next():
                status, close = self._answer(request, connection, client)
                if close:
                    return
                connection.expect_next(was_refused=status.startswith("4"))
        except GaveWay:
            if connection.has_request:
                self._refuse(connection, client, "503 Service Unavailable")

    def _answer(self, request: Request, connection: Connection, client: socket.socket) -> tuple[str, bool]:
        """Answer a request; return the status, and whether the connection ends with it."""
        environ, request.environ = request.environ, {}  # the environ holds the request: no circle for the collector
        environ[READ_DEADLINE] = connection.deadline
        client.timeout = self._read_timeout  # a client that does not read is cut as well
        self._count_request()
        answer = ResponseHead()
        result = self.wsgi(environ, answer.start)
        try:
            body = b"".join(result)
        finally:
            if hasattr(result, "close"):
                result.close()
        whole = request.is_complete
        close = self._closing or not self.alive or connection.dismissed or not whole
        close = close or request.is_last or answer.is_final
        client.timeout = self._read_timeout  # the connection sets it as it goes
        send(client, answer.written(close=close) + (b"" if environ["REQUEST_METHOD"] == "HEAD" else body))
        if not whole or request.is_last:
            connection.linger()
        return answer.status, close

    def _count_request(self) -> None:
        self.nr += 1
        if self.nr >= self.max_requests and self.alive:
            self._log.info("worker ends after its last request", count=self.nr)
            self.alive = False

    def _refuse(self, connection: Connection, client: socket.socket, status: str, why: str = "") -> None:
        self._floods.add("request refused", why or status)
        text = f"{status[4:].lower()}\n".encode("ascii")
        answer = ResponseHead()
        again = [("Retry-After", RETRY_AFTER)] if status.startswith("503") else []
        answer.start(status, [("Content-Type", "text/plain"), ("Content-Length", str(len(text))), *again])
        client.settimeout(LINGER_SECONDS)
        with suppress(OSError):
            client.sendall(answer.written(close=True) + text)
            connection.linger()


def _is_late(waiter: Waiter, *, since: float, now: float) -> bool:
    """Return whether a request that is not complete gives way to the stop, which began at *since*."""
    if not waiter.has_head:
        return now - since >= STOP_HEAD_SECONDS
    return now - since >= (STOP_BODY_SECONDS if waiter.moved(now) >= SLOW_BYTES else STOP_HEAD_SECONDS)
