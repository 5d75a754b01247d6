"""A synchronous connection to NATS: its event loop runs only during a call, in the caller's thread."""

import asyncio
import logging
import math
from collections.abc import Coroutine
from contextlib import suppress
from typing import Any, Final, TypeVar

from nats.aio.client import Client
from nats.js import JetStreamContext

from service.storage.nats.errors import UNREACHABLE, map_errors
from service.storage.nats.settings import NatsSettings

CLOSE_TIMEOUT_SECONDS: Final = 0.5
_T = TypeVar("_T")


class NatsConnection:
    """The client and its event loop."""

    def __init__(self, settings: NatsSettings, *, timeout: float) -> None:
        """Connect; raises InboxUnavailable. *timeout*, in seconds, applies to each request."""
        logging.getLogger("nats").setLevel(logging.CRITICAL + 1)  # our own log reports each problem once
        self._loop = asyncio.new_event_loop()
        self.timeout = timeout
        self.client = Client()
        try:
            self.run(self.client.connect(**settings.client(), connect_timeout=math.ceil(timeout), error_cb=_ignore))
        except BaseException:
            self.close()
            raise
        self.stream: JetStreamContext = self.client.jetstream(timeout=timeout)

    @property
    def server_id(self) -> str:
        """Return the id of the server that the client is connected to."""
        return str(self.client._server_info.get("server_id"))  # noqa: SLF001  there is no public attribute

    def run(self, request: Coroutine[Any, Any, _T]) -> _T:
        """Run *request* and return its result, within the timeout. Raises InboxUnavailable."""
        with map_errors():
            return self._loop.run_until_complete(asyncio.wait_for(request, self.timeout))

    def answer_pings(self) -> None:
        """Answer the server's pings that arrived between requests. Raises InboxUnavailable."""
        with map_errors():
            self._loop.run_until_complete(asyncio.sleep(0.001))
        if self.client.is_closed or not self.client.is_connected:
            raise UNREACHABLE.error()

    def close(self) -> None:
        """Close the connection, whatever its state."""
        with suppress(Exception):
            self._loop.run_until_complete(asyncio.wait_for(self.client.close(), CLOSE_TIMEOUT_SECONDS))
        for task in asyncio.all_tasks(self._loop):
            task.cancel()
        with suppress(Exception):
            self._loop.run_until_complete(asyncio.sleep(0))
        self._loop.close()


async def _ignore(_: Exception) -> None:
    """Ignore an error between requests: the next request raises it."""
