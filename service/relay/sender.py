"""One try over HTTP: where it may go, how long it may take, how much of the answer is read.

urllib3 speaks HTTP over cooperative sockets, so that a try in flight costs a greenlet, and a deadline ends all of it,
whatever it waits for: a name, a connection, a handshake, an answer that drips.
"""

import ipaddress
import socket
import ssl
from typing import Any, Final, NamedTuple
from urllib.parse import urlsplit

import gevent
import gevent.socket
import gevent.ssl
import urllib3
from gevent.threadpool import ThreadPool
from urllib3.connection import HTTPConnection, HTTPSConnection

from service.relay.message import Message

MOST_OF_ANSWER: Final = 65_536  # bytes; nothing of it is used, but a connection is kept only where it was read
NO_ANSWER: Final = 0
LOOKUPS: Final = 2  # names looked up at once, by threads: a name server that is silent holds up its destination alone
_METADATA: Final = ipaddress.ip_address("fd00:ec2::254")  # of a cloud, on no link-local address


class Answer(NamedTuple):
    """What came of a try: the status, 0 where there was none, a word for it, and for how long to wait if it says so."""

    status: int
    outcome: str
    retry_after: str | None = None


class Forbidden(OSError):
    """The address that the name led to is one that only `internal: true` may reach."""


class _Late(gevent.Timeout):  # type: ignore[misc]
    """The try's time is up; no Exception, so that nobody on the way takes it for something else."""


def is_forbidden(address: str) -> bool:
    """Say whether an address is the machine's own, the link's, or a cloud's metadata."""
    found = ipaddress.ip_address(address.partition("%")[0])
    found = getattr(found, "ipv4_mapped", None) or found
    return found.is_loopback or found.is_link_local or found.is_unspecified or found.is_multicast or found == _METADATA


class Sender:
    """The connections to one destination, kept alive between tries; all of one thread."""

    def __init__(self, url: str, *, internal: bool, timeout: float, connections: int) -> None:
        """*timeout* is in seconds, for all of a try."""
        parts = urlsplit(url)
        self._target = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
        self._timeout = timeout
        self._lookups = ThreadPool(LOOKUPS)
        secure = parts.scheme == "https"
        kind = urllib3.HTTPSConnectionPool if secure else urllib3.HTTPConnectionPool
        with_tls: dict[str, Any] = {"ssl_context": _tls()} if secure else {}
        pool = kind(parts.hostname or "", port=parts.port, maxsize=connections, retries=False, **with_tls)
        pool.ConnectionCls = _connection(
            HTTPSConnection if secure else HTTPConnection, self._lookups, internal=internal
        )
        self._pool = pool

    def send(self, message: Message) -> Answer:
        """POST *message* once, following nothing."""
        answer = None
        late = _Late.start_new(self._timeout)
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
            if len(answer.read(MOST_OF_ANSWER)) < MOST_OF_ANSWER:
                answer.release_conn()
        except _Late as ex:
            if ex is not late:
                raise
            if answer is None:
                return Answer(NO_ANSWER, "timeout")
        except (urllib3.exceptions.HTTPError, OSError, ValueError) as ex:
            if answer is None:
                return Answer(NO_ANSWER, _outcome_of(ex))
        finally:
            late.close()
            if answer is not None and answer.connection is not None:  # not all of it was read
                answer.close()
        return Answer(answer.status, _word_of(answer.status), answer.headers.get("Retry-After"))

    def close(self) -> None:
        """Let go of idle connections."""
        self._pool.close()
        self._lookups.kill()


def _tls() -> ssl.SSLContext:
    """Make what `ssl.create_default_context` makes; that one's sockets would block the loop."""
    context: ssl.SSLContext = gevent.ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.load_default_certs()
    return context


def _connection(kind: type[HTTPConnection], lookups: ThreadPool, *, internal: bool) -> type[HTTPConnection]:
    class Cooperative(kind):  # type: ignore[misc, valid-type]
        """Connects cooperatively, to where it may, and sends head and body in one piece."""

        _pieces: list[bytes] | None = None

        def _new_conn(self) -> socket.socket:
            where = (self.host.strip("[]"), self.port, 0, socket.SOCK_STREAM)
            return _connected(lookups.apply(socket.getaddrinfo, where), internal=internal)

        def request(self, *args: Any, **kwargs: Any) -> None:
            self._pieces = []
            try:
                super().request(*args, **kwargs)
            finally:
                pieces, self._pieces = self._pieces, None
            self.send(b"".join(pieces))

        def send(self, data: bytes) -> None:
            if self._pieces is None:
                super().send(data)
            else:
                self._pieces.append(data)

    return Cooperative


def _connected(addresses: list[tuple[Any, ...]], *, internal: bool) -> socket.socket:
    """Connect to the first address that can be reached and may be."""
    failure: OSError = Forbidden("every address is reached by `internal: true` only")
    for family, kind, protocol, _, address in addresses:
        if not internal and is_forbidden(address[0]):
            continue
        made = gevent.socket.socket(family, kind, protocol)
        try:
            made.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            made.connect(address)
        except OSError as ex:
            made.close()
            failure = ex
        except BaseException:
            made.close()
            raise
        else:
            return made  # type: ignore[no-any-return]
    raise failure


def _word_of(status: int) -> str:
    if 200 <= status < 300:  # noqa: PLR2004  success
        return "delivered"
    return "redirect" if 300 <= status < 400 else f"{status // 100}xx"  # noqa: PLR2004  redirection


def _outcome_of(ex: BaseException) -> str:
    for cause in _chain(ex):
        if isinstance(cause, Forbidden):
            return "forbidden"
        if isinstance(cause, urllib3.exceptions.SSLError | ssl.SSLError):
            return "tls"
    return "connection"


def _chain(ex: BaseException | None) -> list[BaseException]:
    found: list[BaseException] = []
    while ex is not None and ex not in found:
        found.append(ex)
        reason = getattr(ex, "reason", None)
        ex = ex.__cause__ or ex.__context__ or (reason if isinstance(reason, BaseException) else None)
    return found
