"""One try over HTTP: where it may go, how long it may take, how much of the answer is read.

urllib3 speaks HTTP over cooperative sockets, so that a try in flight costs a greenlet, and a deadline ends all of it,
whatever it waits for: a name, a connection, a handshake, an answer that drips.
"""

import http
import http.client
import io
import socket
import ssl
import time
from typing import Any, Final, NamedTuple
from urllib.parse import urlsplit

import gevent
import gevent.socket
import gevent.ssl
import urllib3
from gevent.threadpool import ThreadPool
from urllib3.connection import HTTPConnection, HTTPSConnection

from service.outcomes import AttemptOutcome
from service.relay.forbidden_addresses import is_forbidden
from service.relay.message import Message

MAX_RESPONSE_BODY_BYTES: Final = 65_536  # bytes; nothing of it is used, but a connection is kept only where it was read
MAX_RESPONSE_HEAD_BYTES: Final = (
    65_536  # bytes of an answer up to the end of its head, with the interim answers before it
)
RESPONSE_PIECE_BYTES: Final = 8_192
CHUNK_FRAMING_BYTES: Final = 6  # bytes of a chunk besides what it holds
RESPONSE_TURN_SECONDS: Final = 0.001  # seconds for which one answer may keep the loop
NO_ANSWER: Final = 0
MAX_INTERIM_RESPONSES: Final = 20  # answers of 1xx before the one that counts
LOOKUP_THREADS: Final = (
    2  # names looked up at once, by threads: a name server that is silent holds up its destination alone
)


class DeliveryResponse(NamedTuple):
    """What came of a try: the status, 0 where there was none, a word for it, and for how long to wait if it says so."""

    status: int
    outcome: AttemptOutcome
    retry_after: str | None = None


class Forbidden(OSError):
    """The address that the name led to is one that only `internal: true` may reach."""


class _Late(gevent.Timeout):  # type: ignore[misc]
    """The try's time is up; no Exception, so that nobody on the way takes it for something else."""


class _Stale(OSError):
    """A connection that was kept alive ended before it answered anything: the other side was closing it."""


class Sender:
    """The connections to one destination, kept alive between attempts; all of one thread."""

    def __init__(self, url: str, *, internal: bool, timeout: float, connections: int) -> None:
        """*timeout* is in seconds, for all of a try."""
        parts = urlsplit(url)
        self._target = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
        self._timeout = timeout
        self._lookups = ThreadPool(LOOKUP_THREADS)
        secure = parts.scheme == "https"
        kind = urllib3.HTTPSConnectionPool if secure else urllib3.HTTPConnectionPool
        with_tls: dict[str, Any] = {"ssl_context": _tls()} if secure else {}
        pool = kind(parts.hostname or "", port=parts.port, maxsize=connections, retries=False, **with_tls)
        pool.ConnectionCls = _connection(
            HTTPSConnection if secure else HTTPConnection, self._lookups, internal=internal, timeout=timeout
        )
        self._pool = pool

    def send(self, message: Message) -> DeliveryResponse:
        """POST *message* once, following nothing."""
        late = _Late.start_new(self._timeout)
        try:
            answer = self._sent(message, late)
            # Not a word came on a connection that was kept: the destination had just let go of it.
            return self._sent(message, late) if answer is _ONCE_MORE else answer
        finally:
            late.close()

    def _sent(self, message: Message, late: _Late) -> DeliveryResponse:
        answer = None
        try:
            answer = self._pool.urlopen(
                "POST",
                self._target,
                body=message.body,
                headers={"User-Agent": "whatsapp-webhook-relay", **message.headers},
                timeout=None,
                redirect=False,
                preload_content=False,
                decode_content=False,
            )
            if _is_read_to_its_end(answer):
                answer.release_conn()
        except _Late as ex:
            if ex is not late:
                raise
            if answer is None:
                return DeliveryResponse(NO_ANSWER, AttemptOutcome.TIMEOUT)
        except (urllib3.exceptions.HTTPError, OSError, ValueError) as ex:
            if answer is None:
                return _ONCE_MORE if any(isinstance(each, _Stale) for each in _chain(ex)) else _failed(ex)
        finally:
            if answer is not None and answer.connection is not None:  # not all of it was read
                answer.close()
        return DeliveryResponse(answer.status, _outcome_of(answer.status), answer.headers.get("Retry-After"))

    def close(self) -> None:
        """Let go of idle connections; a name that is being looked up is not waited for."""
        self._pool.close()
        gevent.spawn(self._lookups.kill)


def _tls() -> ssl.SSLContext:
    """Make what `ssl.create_default_context` makes; that one's sockets would block the loop."""
    context: ssl.SSLContext = gevent.ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.load_default_certs()
    return context


def _connection(
    kind: type[HTTPConnection], lookups: ThreadPool, *, internal: bool, timeout: float
) -> type[HTTPConnection]:
    class Cooperative(kind):  # type: ignore[misc, valid-type]
        """Connects cooperatively, to where it may, and sends head and body in one piece."""

        response_class = _Response
        _pieces: list[bytes] | None = None
        _uses = 0

        def _new_conn(self) -> socket.socket:
            found = lookups.apply(_addresses, (self.host.strip("[]"), self.port))
            if isinstance(found, OSError):
                raise found
            return _connected(found, internal=internal, timeout=timeout)

        def request(self, *args: Any, **kwargs: Any) -> None:
            self._uses = 0 if self.sock is None else self._uses + 1
            self._pieces = []
            try:
                super().request(*args, **kwargs)
            finally:
                pieces, self._pieces = self._pieces, None
            self.send(b"".join(pieces))

        def getresponse(self) -> Any:
            try:
                return super().getresponse()
            except (http.client.RemoteDisconnected, ConnectionResetError, BrokenPipeError) as ex:
                if self._uses:
                    raise _Stale from ex
                raise

        def send(self, data: bytes) -> None:
            if self._pieces is None:
                super().send(data)
            else:
                self._pieces.append(data)

    return Cooperative


def _addresses(host: str, port: int) -> list[tuple[Any, ...]] | OSError:
    """Look a name up; what fails is given, and not raised: the pool would write it to stderr."""
    try:
        return socket.getaddrinfo(host, port, 0, socket.SOCK_STREAM)
    except OSError as ex:
        return ex
    except ValueError:  # a label that no name can have
        return OSError("the name can't be looked up")


def _connected(addresses: list[tuple[Any, ...]], *, internal: bool, timeout: float) -> socket.socket:
    """Connect to the first address that answers and may be; one that is silent has its share of the time."""
    failure: OSError = Forbidden("every address is reached by `internal: true` only")
    allowed = [each for each in addresses if internal or not is_forbidden(each[4][0])]
    for family, kind, protocol, _, address in allowed:
        made = gevent.socket.socket(family, kind, protocol)
        try:
            made.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            made.settimeout(timeout / (len(allowed) + 1))
            made.connect(address)
            made.settimeout(None)
        except OSError as ex:
            made.close()
            failure = ex
        except BaseException:
            made.close()
            raise
        else:
            return made  # type: ignore[no-any-return]
    raise failure


def _is_read_to_its_end(answer: urllib3.BaseHTTPResponse) -> bool:
    """Read what follows a head, to a bound and in turns; return whether that was all of it."""
    taken, since = 0, time.perf_counter()
    for piece in answer.stream(RESPONSE_PIECE_BYTES):
        taken += len(piece) + CHUNK_FRAMING_BYTES
        if taken >= MAX_RESPONSE_BODY_BYTES:
            return False
        if time.perf_counter() - since > RESPONSE_TURN_SECONDS:
            gevent.sleep(0)
            since = time.perf_counter()
    return True


class _Head(io.BufferedReader):
    """The bytes of an answer, bounded until its head is complete."""

    left: int | None = MAX_RESPONSE_HEAD_BYTES

    def readline(self, size: int | None = -1, /) -> bytes:
        line = super().readline(size)
        if self.left is not None:
            self.left -= len(line)
            if self.left < 0:
                raise http.client.HTTPException("no end of the answer's head")
        return line


class _Response(http.client.HTTPResponse):
    """Reads over interim answers, of which http.client knows one, to a bound; other greenlets get their turn."""

    fp: _Head

    def __init__(self, sock: socket.socket, *args: Any, **kwargs: Any) -> None:
        super().__init__(sock, *args, **kwargs)
        self.fp = _Head(self.fp.detach())

    def begin(self) -> None:
        super().begin()
        if isinstance(self.fp, _Head):  # None once an answer without a body was read
            self.fp.left = None

    def _read_status(self) -> tuple[str, int, str]:
        for number in range(MAX_INTERIM_RESPONSES):
            if number:
                gevent.sleep(0)
            version, status, reason = super()._read_status()  # type: ignore[misc]
            if not 100 <= status < 200 or status == http.HTTPStatus.SWITCHING_PROTOCOLS:  # noqa: PLR2004  interim
                return version, status, reason
            http.client.parse_headers(self.fp)
        raise http.client.HTTPException("no end of interim answers")


def _outcome_of(status: int) -> AttemptOutcome:
    if 200 <= status < 300:  # noqa: PLR2004  success
        return AttemptOutcome.DELIVERED
    if 300 <= status < 400:  # noqa: PLR2004  redirection
        return AttemptOutcome.REDIRECT
    if status < 600:  # noqa: PLR2004  what HTTP knows
        return AttemptOutcome(f"{status // 100}xx")
    return AttemptOutcome.ERROR


def _failed(ex: BaseException) -> DeliveryResponse:
    for cause in _chain(ex):
        if isinstance(cause, Forbidden):
            return DeliveryResponse(NO_ANSWER, AttemptOutcome.FORBIDDEN)
        if isinstance(cause, urllib3.exceptions.SSLError | ssl.SSLError):
            return DeliveryResponse(NO_ANSWER, AttemptOutcome.TLS)
    return DeliveryResponse(NO_ANSWER, AttemptOutcome.CONNECTION)


_ONCE_MORE: Final = DeliveryResponse(NO_ANSWER, AttemptOutcome.CONNECTION, "stale")  # told by identity


def _chain(ex: BaseException | None) -> list[BaseException]:
    found: list[BaseException] = []
    while ex is not None and ex not in found:
        found.append(ex)
        reason = getattr(ex, "reason", None)
        ex = ex.__cause__ or ex.__context__ or (reason if isinstance(reason, BaseException) else None)
    return found
