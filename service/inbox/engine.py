"""From the configured URL to the engine: the one place that knows them all."""

from collections.abc import Callable

from service.config import InboxUrl
from service.errors import ConfigurationError
from service.inbox import memory, sqlite
from service.inbox.base import Inbox
from service.inbox.sqlite import SqliteLog


def opener(
    url: InboxUrl, *, retention: float, body_retention: float, hold: Callable[[int], int | None] | None = None
) -> Callable[[], Inbox]:
    """Make what opens the inbox at *url*; retentions are in seconds. Opening is left to the writer, in its thread.

    *hold* gives, for a time in milliseconds since the epoch, the oldest position that is not to be purged.
    """
    keep, keep_bodies = int(retention * 1000), int(body_retention * 1000)
    if url.engine == "memory":
        return memory.opener(retention=keep)
    return sqlite.opener(url.path, retention=keep, body_retention=keep_bodies, hold=hold)


def open_log(url: InboxUrl) -> SqliteLog:
    """Open the log at *url* for reading from another process; raises InboxUnavailable or ConfigurationError."""
    if url.engine == "memory":
        raise ConfigurationError(["The inbox in memory can't be read from another process: it ends with the server."])
    return SqliteLog(url.path)
