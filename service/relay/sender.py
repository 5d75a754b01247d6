"""One try over HTTP: where it may go, how long it may take, how much of the answer is read.

What Python's sockets do not have is a deadline for all of a try: each read has its own. So a watchdog of ours shuts
the socket of a try that is late, however slowly its answer drips.
"""

import contextlib
import heapq
import ipaddress
import itertools
import socket
import threading
import time
from typing import Any, Final, NamedTuple
from urllib.parse import urlsplit

import urllib3
from urllib3.connection import HTTPConnection, HTTPSConnection
from urllib3.util import Timeout

from service.relay.message import Message

MOST_OF_ANSWER: Final = 65_536  # bytes; nothing of it is used, but a connection is kept only where it was read
NO_ANSWER: Final = 0
_METADATA: Final = ipaddress.ip_address("fd00:ec2::254")  # of a cloud, on no link-local address


class Answer(NamedTuple):
    """What came of a try: the status, 0 where there was none, a word for it, and for how long to wait if it says so."""

    status: int
    outcome: str
    retry_after: str | None = None


class Forbidden(OSError):
    """The address that the name led to is one that only `internal: true` may reach."""


def is_forbidden(address: str) -> bool:
    """Say whether an address is the machine's own, the link's, or a cloud's metadata."""
    found = ipaddress.ip_address(address.partition("%")[0])
    found = getattr(found, "ipv4_mapped", None) or found
    return found.is_loopback or found.is_link_local or found.is_unspecified or found.is_multicast or found == _METADATA


class _Guarded:
    """A connection that looks where it came to before it says anything."""

    internal = False

    def _new_conn(self) -> socket.socket:
        made: socket.socket = super()._new_conn()  # type: ignore[misc]
        address = made.getpeername()[0]
        if not self.internal and is_forbidden(address):
            made.close()
            raise Forbidden(f"{address} is reached by `internal: true` only")
        return made


class _Http(_Guarded, HTTPConnection):
    pass


class _Https(_Guarded, HTTPSConnection):
    pass


class _InternalHttp(_Http):
    internal = True


class _InternalHttps(_Https):
    internal = True


class Watchdog:
    """Shuts sockets whose time is up: one thread for all tries."""

    def __init__(self) -> None:
        self._late: list[tuple[float, int, Any]] = []
        self._numbers = itertools.count()
        self._changed = threading.Condition()
        self._over = False
        self._thread = threading.Thread(target=self._run, name="watchdog", daemon=True)

    def start(self) -> None:
        """Begin."""
        self._thread.start()

    def stop(self) -> None:
        """End; nothing is shut any more."""
        with self._changed:
            self._over = True
            self._changed.notify()
        self._thread.join()

    def guard(self, attempt: "_Attempt", deadline: float) -> None:
        """Have *attempt* cut at *deadline*, a time of the monotonic clock."""
        with self._changed:
            entry = (deadline, next(self._numbers), attempt)
            heapq.heappush(self._late, entry)
            if self._late[0] is entry:
                self._changed.notify()

    def _run(self) -> None:
        with self._changed:
            while not self._over:
                now = time.monotonic()
                while self._late and self._late[0][0] <= now:
                    heapq.heappop(self._late)[2].cut()
                self._changed.wait(self._late[0][0] - now if self._late else None)


class _Attempt:
    """What the watchdog needs of one try."""

    def __init__(self) -> None:
        self.connection: Any = None
        self.is_over = False
        self.was_cut = False
        self._lock = threading.Lock()

    def cut(self) -> None:
        """Shut the socket, unless the try is over and the socket is another's."""
        with self._lock:
            sock = getattr(self.connection, "sock", None)
            if self.is_over:
                return
            self.was_cut = True
            if sock is not None:
                with contextlib.suppress(OSError):
                    sock.shutdown(socket.SHUT_RDWR)

    def end(self) -> None:
        """Say that the socket is no longer this try's."""
        with self._lock:
            self.is_over = True


class Sender:
    """The connections to one destination, kept alive between tries."""

    def __init__(self, url: str, *, internal: bool, timeout: float, connections: int, watchdog: Watchdog) -> None:
        """*timeout* is in seconds, for all of a try."""
        parts = urlsplit(url)
        self._target = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
        self._timeout = timeout
        self._watchdog = watchdog
        kinds = {
            ("http", False): (urllib3.HTTPConnectionPool, _Http),
            ("http", True): (urllib3.HTTPConnectionPool, _InternalHttp),
            ("https", False): (urllib3.HTTPSConnectionPool, _Https),
            ("https", True): (urllib3.HTTPSConnectionPool, _InternalHttps),
        }
        pool, connection = kinds[parts.scheme, internal]
        attempts = self._attempts = threading.local()

        class Watched(connection):  # type: ignore[misc, valid-type]
            """Tells the present try which connection is its own."""

            def request(self, *args: Any, **kwargs: Any) -> None:
                attempts.current.connection = self
                super().request(*args, **kwargs)

        self._pool = pool(parts.hostname or "", port=parts.port, maxsize=connections, block=False, retries=False)
        self._pool.ConnectionCls = Watched

    def send(self, message: Message) -> Answer:
        """POST *message* once, following nothing."""
        attempt = self._attempts.current = _Attempt()
        self._watchdog.guard(attempt, time.monotonic() + self._timeout)
        try:
            return self._sent(message, attempt)
        except (urllib3.exceptions.HTTPError, OSError, ValueError) as ex:
            return Answer(NO_ANSWER, "timeout" if attempt.was_cut else _outcome_of(ex))
        finally:
            attempt.end()

    def _sent(self, message: Message, attempt: _Attempt) -> Answer:
        answer = self._pool.urlopen(
            "POST",
            self._target,
            body=message.body,
            headers={"User-Agent": "whatsapp-webhook-relay", **message.headers},
            timeout=Timeout(connect=self._timeout, read=self._timeout),
            redirect=False,
            preload_content=False,
            decode_content=False,
        )
        if attempt.was_cut:  # what came of its head passes for whole
            answer.close()
            return Answer(NO_ANSWER, "timeout")
        try:
            rest = answer.read(MOST_OF_ANSWER)
            is_whole = len(rest) < MOST_OF_ANSWER
        except (urllib3.exceptions.HTTPError, OSError):
            is_whole = False  # the status is what counts
        if is_whole:
            answer.release_conn()
        else:
            answer.close()
        return Answer(answer.status, _word_of(answer.status), answer.headers.get("Retry-After"))

    def close(self) -> None:
        """Let go of idle connections."""
        self._pool.close()


def _word_of(status: int) -> str:
    if 200 <= status < 300:  # noqa: PLR2004  success
        return "delivered"
    return "redirect" if 300 <= status < 400 else f"{status // 100}xx"  # noqa: PLR2004  redirection


def _outcome_of(ex: Exception) -> str:
    for cause in _chain(ex):
        if isinstance(cause, Forbidden):
            return "forbidden"
        if isinstance(cause, urllib3.exceptions.SSLError):
            return "tls"
        if isinstance(cause, TimeoutError | urllib3.exceptions.TimeoutError) and not isinstance(
            cause, urllib3.exceptions.NewConnectionError
        ):
            return "timeout"
    return "connection"


def _chain(ex: BaseException | None) -> list[BaseException]:
    found: list[BaseException] = []
    while ex is not None and ex not in found:
        found.append(ex)
        reason = getattr(ex, "reason", None)
        ex = ex.__cause__ or ex.__context__ or (reason if isinstance(reason, BaseException) else None)
    return found
