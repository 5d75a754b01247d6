"""Sends one attempt over HTTP: which addresses are allowed, how long it may take, how much of the response is read.

urllib3 speaks HTTP over cooperative sockets: an attempt costs a greenlet, and one deadline covers all of it, whatever
it waits for: name resolution, connection, TLS handshake, or a slow response.
"""

import http
import http.client
import io
import socket
import ssl
import time
from collections.abc import Callable, Sequence
from typing import Any, Final, TypeAlias
from urllib.parse import urlsplit

import gevent
import gevent.socket
import gevent.ssl
import urllib3
from gevent.threadpool import ThreadPool
from urllib3.connection import HTTPConnection, HTTPSConnection

from service.outcomes import AttemptOutcome
from service.relay.attempt_result import (
    MAX_EVIDENCE_TEXT_BYTES,
    Forbidden,
    StaleConnection,
    answered,
    unanswered,
)
from service.relay.delivery_response import NO_ANSWER, DeliveryResponse
from service.relay.forbidden_addresses import is_forbidden
from service.relay.message import Message
from service.storage.deliveries import AttemptEvidence

Addresses: TypeAlias = list[tuple[Any, ...]]
Resolve: TypeAlias = Callable[[str, int, int, int], Addresses]
# The body is not used, but a connection can be reused only if the body was read.
MAX_RESPONSE_BODY_BYTES: Final = 65_536
MAX_RESPONSE_HEAD_BYTES: Final = 65_536  # including the interim responses before it
RESPONSE_PIECE_BYTES: Final = 8_192
CHUNK_FRAMING_BYTES: Final = 6  # overhead per chunk
RESPONSE_TURN_SECONDS: Final = 0.001  # how long reading one response may occupy the event loop
MAX_INTERIM_RESPONSES: Final = 20  # 1xx responses before the final one
# Threads per destination, so that a silent name server delays only its own destination.
LOOKUP_THREADS: Final = 2


class _Late(gevent.Timeout):  # type: ignore[misc]
    """The attempt's timeout; not an Exception, so that no handler in urllib3 swallows it."""


class Sender:
    """The connections to one destination, kept alive between attempts; used by one thread only."""

    def __init__(
        self, url: str, *, internal: bool, timeout: float, connections: int, resolve: Resolve = socket.getaddrinfo
    ) -> None:
        """*timeout* is in seconds, for a whole attempt; *resolve* looks names up like `socket.getaddrinfo`."""
        parts = urlsplit(url)
        self._target = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
        self._timeout = timeout
        self._lookups = ThreadPool(LOOKUP_THREADS)
        is_https = parts.scheme == "https"
        pool_type = urllib3.HTTPSConnectionPool if is_https else urllib3.HTTPConnectionPool
        tls_options: dict[str, Any] = {"ssl_context": _tls_context()} if is_https else {}
        pool = pool_type(parts.hostname or "", port=parts.port, maxsize=connections, retries=False, **tls_options)
        pool.ConnectionCls = _connection_type(
            HTTPSConnection if is_https else HTTPConnection,
            lambda host, port: self._lookups.apply(_addresses, (resolve, host, port)),
            internal=internal,
            timeout=timeout,
        )
        self._pool = pool

    def send(self, message: Message) -> Sequence[DeliveryResponse]:
        """POST *message*, without following redirects; return the result of each POST, the deciding one last.

        There are two if the first one met a kept-alive connection that the destination had just closed.
        """
        deadline = _Late.start_new(self._timeout)
        try:
            answers = [self._timed(message, deadline)]
            if answers[0].outcome is AttemptOutcome.STALE:
                answers.append(self._timed(message, deadline))
            return answers
        finally:
            deadline.close()

    def _timed(self, message: Message, deadline: _Late) -> DeliveryResponse:
        started = time.perf_counter()
        return self._send_once(message, deadline)._replace(seconds=time.perf_counter() - started)

    def _send_once(self, message: Message, deadline: _Late) -> DeliveryResponse:
        answer, text = None, bytearray()
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
            if _read_to_end(answer, text):
                answer.release_conn()
        except _Late as ex:
            if ex is not deadline:
                raise
            if answer is None:
                reason = f"no response within {self._timeout:g} s"
                return DeliveryResponse(NO_ANSWER, AttemptOutcome.TIMEOUT, evidence=AttemptEvidence(reason))
        except (urllib3.exceptions.HTTPError, OSError, ValueError) as ex:
            if answer is None:
                return unanswered(ex)
        finally:
            if answer is not None and answer.connection is not None:  # not read to its end
                answer.close()
        return answered(answer, bytes(text))

    def close(self) -> None:
        """Close idle connections, without waiting for running name lookups."""
        self._pool.close()
        gevent.spawn(self._lookups.kill)


def _tls_context() -> ssl.SSLContext:
    """Return a context like `ssl.create_default_context`'s, whose sockets would block the event loop."""
    context: ssl.SSLContext = gevent.ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.load_default_certs()
    return context


def _connection_type(
    base: type[HTTPConnection], look_up: Callable[[str, int], Addresses | OSError], *, internal: bool, timeout: float
) -> type[HTTPConnection]:
    class Cooperative(base):  # type: ignore[misc, valid-type]
        """Connects cooperatively, to allowed addresses only, and sends head and body in one piece."""

        response_class = _Response
        _pieces: list[bytes] | None = None
        _uses = 0

        def _new_conn(self) -> socket.socket:
            addresses = look_up(self.host.strip("[]"), self.port)
            if isinstance(addresses, OSError):
                raise addresses
            return _connect(addresses, internal=internal, timeout=timeout)

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
                    raise StaleConnection from ex
                raise

        def send(self, data: bytes) -> None:
            if self._pieces is None:
                super().send(data)
            else:
                self._pieces.append(data)

    return Cooperative


def _addresses(resolve: Resolve, host: str, port: int) -> Addresses | OSError:
    """Resolve a host name; return an error instead of raising it, because the pool would write it to stderr."""
    try:
        return resolve(host, port, 0, socket.SOCK_STREAM)
    except OSError as ex:
        return ex
    except ValueError:  # the name has an invalid label
        return OSError("the host name is invalid")


def _connect(addresses: list[tuple[Any, ...]], *, internal: bool, timeout: float) -> socket.socket:
    """Connect to the first allowed address that accepts; each one gets a share of the timeout."""
    failure: OSError = Forbidden("all addresses of the host require `internal: true`")
    allowed = [each for each in addresses if internal or not is_forbidden(each[4][0])]
    for family, kind, protocol, _, address in allowed:
        connection = gevent.socket.socket(family, kind, protocol)
        try:
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            connection.settimeout(timeout / (len(allowed) + 1))
            connection.connect(address)
            connection.settimeout(None)
        except OSError as ex:
            connection.close()
            failure = ex
        except BaseException:
            connection.close()
            raise
        else:
            return connection  # type: ignore[no-any-return]
    raise failure


def _read_to_end(answer: urllib3.BaseHTTPResponse, text: bytearray) -> bool:
    """Read the body up to a limit, giving other greenlets their turn; return whether it was read to its end.

    Adds the start of the body to *text*.
    """
    read_bytes, turn_started = 0, time.perf_counter()
    for piece in answer.stream(RESPONSE_PIECE_BYTES):
        read_bytes += len(piece) + CHUNK_FRAMING_BYTES
        if len(text) < MAX_EVIDENCE_TEXT_BYTES:
            text += piece[:MAX_EVIDENCE_TEXT_BYTES]
        if read_bytes >= MAX_RESPONSE_BODY_BYTES:
            return False
        if time.perf_counter() - turn_started > RESPONSE_TURN_SECONDS:
            gevent.sleep(0)
            turn_started = time.perf_counter()
    return True


class _Head(io.BufferedReader):
    """Reads a response, with a limit until its head is complete."""

    left: int | None = MAX_RESPONSE_HEAD_BYTES

    def readline(self, size: int | None = -1, /) -> bytes:
        line = super().readline(size)
        if self.left is not None:
            self.left -= len(line)
            if self.left < 0:
                raise http.client.HTTPException("the response's head is too large")
        return line


class _Response(http.client.HTTPResponse):
    """Skips interim responses up to a limit (http.client skips only 100), giving other greenlets their turn."""

    fp: _Head

    def __init__(self, sock: socket.socket, *args: Any, **kwargs: Any) -> None:
        super().__init__(sock, *args, **kwargs)
        self.fp = _Head(self.fp.detach())

    def begin(self) -> None:
        """Read the response's head; a complete status line decides, whatever follows it."""
        try:
            super().begin()
        except (http.client.HTTPException, OSError, ValueError, _Late):
            if not isinstance(self.status, int):
                raise
            self.headers = self.msg = http.client.HTTPMessage()
            self.length, self.chunked, self.will_close = 0, False, True
        if isinstance(self.fp, _Head):  # None after a response without a body
            self.fp.left = None

    def _read_status(self) -> tuple[str, int, str]:
        for number in range(MAX_INTERIM_RESPONSES):
            if number:
                gevent.sleep(0)
            version, status, reason = super()._read_status()  # type: ignore[misc]
            if not 100 <= status < 200 or status == http.HTTPStatus.SWITCHING_PROTOCOLS:  # noqa: PLR2004  interim
                return version, status, reason
            http.client.parse_headers(self.fp)
        raise http.client.HTTPException("too many interim responses")
