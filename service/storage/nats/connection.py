"""A connection whose loop runs while it is asked something, in the thread that asks."""

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
    """The client, and its loop."""

    def __init__(self, settings: NatsSettings, *, timeout: float) -> None:
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
        with map_errors():
            return self._loop.run_until_complete(asyncio.wait_for(asked, self.timeout))

    def breathe(self) -> None:
        """Answer the server's pings, which come while nobody asks anything. Raises InboxUnavailable."""
        with map_errors():
            self._loop.run_until_complete(asyncio.sleep(0.001))
        if self.client.is_closed or not self.client.is_connected:
            raise UNREACHABLE.error()

    def close(self) -> None:
        """Let go of the server, however it is."""
        with suppress(Exception):
            self._loop.run_until_complete(asyncio.wait_for(self.client.close(), CLOSE_TIMEOUT_SECONDS))
        for task in asyncio.all_tasks(self._loop):
            task.cancel()
        with suppress(Exception):
            self._loop.run_until_complete(asyncio.sleep(0))
        self._loop.close()


async def _nothing(_: Exception) -> None:
    """Leave it to whoever asks next."""
