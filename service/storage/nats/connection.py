"""A connection whose loop runs while it is asked something, in the thread that asks; and failures in words."""

import asyncio
import logging
import math
import ssl
from collections.abc import Coroutine, Iterator
from contextlib import contextmanager, suppress
from typing import Any, Final, TypeVar

import nats
import nats.errors
import nats.js.errors
from nats.aio.client import Client
from nats.js import JetStreamContext

from service.errors import InboxUnavailable
from service.storage.nats.settings import Settings

CLOSING: Final = 0.5  # seconds
_T = TypeVar("_T")
_REACH: Final = "the server can't be reached: is it up, and is this its address?"
_SLOW: Final = "the server does not acknowledge in time: look at its load and its disk"
TOO_LARGE: Final = "an event is larger than the server takes: raise its max_payload; Meta sends it again meanwhile"
# By the server's own numbers: https://github.com/nats-io/nats-server/blob/main/server/errors.json
_CODES: Final[dict[int, tuple[str, str]]] = {
    10023: ("full", "the server lacks resources: make room on its disk, or raise JetStream's limits"),
    10028: ("full", "the account's storage is used up: raise its limit"),
    10047: ("full", "JetStream's storage is used up: make room, or raise max_file_store"),
    10054: ("too_large", TOO_LARGE),
    10059: ("cannot_open", "there is no such stream"),
    10076: ("io_error", "JetStream is not enabled, or stopped itself: look at the server's log"),
    10077: ("full", "the stream is full: raise its limits, or let consumers keep up"),
}
# What the client raises, or only says.
_KINDS: Final[tuple[tuple[tuple[type[BaseException], ...], tuple[str, ...], str, str], ...]] = (
    (
        (nats.js.errors.NoStreamResponseError, nats.errors.NoRespondersError),
        (),
        "cannot_open",
        "no stream takes the subject: was it deleted, or is it without a leader?",
    ),
    (
        (nats.errors.AuthorizationError,),
        ("authorization",),
        "denied",
        "the server refuses the user: look at the credentials",
    ),
    (
        (ssl.SSLError,),
        ("certificate", "ssl", "tls"),
        "tls",
        "no TLS with the server: look at tlsca and the server's certificate",
    ),
    ((nats.errors.TimeoutError, TimeoutError, asyncio.TimeoutError), (), "slow", _SLOW),
)


class Connection:
    """The client, and its loop."""

    def __init__(self, settings: Settings, *, timeout: float) -> None:
        """Connect; raises InboxUnavailable. *timeout* is in seconds, for whatever is asked."""
        logging.getLogger("nats").setLevel(logging.CRITICAL + 1)  # our log says it once
        self._loop = asyncio.new_event_loop()
        self.timeout = timeout
        self.client = Client()
        try:
            self.run(self.client.connect(**settings.client(), connect_timeout=math.ceil(timeout), error_cb=_nothing))
        except BaseException:
            self.close()
            raise
        self.stream: JetStreamContext = self.client.jetstream(timeout=timeout)

    @property
    def server_id(self) -> str:
        """Give the number of the server that answers."""
        return str(self.client._server_info.get("server_id"))  # noqa: SLF001  nothing else says it

    def run(self, asked: Coroutine[Any, Any, _T]) -> _T:
        """Wait for an answer, not longer than the timeout. Raises InboxUnavailable."""
        with translating():
            return self._loop.run_until_complete(asyncio.wait_for(asked, self.timeout))

    def breathe(self) -> None:
        """Answer the server's pings, which come while nobody asks anything. Raises InboxUnavailable."""
        with translating():
            self._loop.run_until_complete(asyncio.sleep(0.001))
        if self.client.is_closed or not self.client.is_connected:
            raise InboxUnavailable("unreachable", _REACH, reopen=True)

    def close(self) -> None:
        """Let go of the server, however it is."""
        with suppress(Exception):
            self._loop.run_until_complete(asyncio.wait_for(self.client.close(), CLOSING))
        for task in asyncio.all_tasks(self._loop):
            task.cancel()
        with suppress(Exception):
            self._loop.run_until_complete(asyncio.sleep(0))
        self._loop.close()


async def _nothing(_: Exception) -> None:
    """Leave it to whoever asks next."""


@contextmanager
def translating() -> Iterator[None]:
    """Raise InboxUnavailable for whatever the client or the system raise within."""
    try:
        yield
    except (nats.errors.Error, OSError, TimeoutError) as ex:
        raise translated(ex) from ex


def translated(ex: BaseException) -> InboxUnavailable:
    """Say why, with the remedy, and whether the connection is still to be trusted."""
    if isinstance(ex, nats.js.errors.APIError):
        reason, remedy = _CODES.get(ex.err_code or 0, ("error", "the server refuses"))
        return InboxUnavailable(reason, f"{remedy} ({ex.description})", alone=reason == "too_large")
    if isinstance(ex, nats.errors.MaxPayloadError):
        return InboxUnavailable("too_large", TOO_LARGE, alone=True)
    for kinds, words, reason, remedy in _KINDS:
        if isinstance(ex, kinds) or any(word in str(ex).lower() for word in words):
            return InboxUnavailable(reason, remedy, reopen=True)
    return InboxUnavailable("unreachable", f"{_REACH} ({type(ex).__name__})", reopen=True)
