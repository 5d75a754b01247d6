"""The SQLite inbox: a WAL that is synced before the answer, one writing process, any number of readers.

Sources: https://sqlite.org/wal.html (also for the WAL-reset bug, fixed in 3.51.3), https://sqlite.org/pragma.html
#pragma_synchronous. `apsw` brings a library of its own; the one of Python or of the distribution is not used.
"""

from collections.abc import Callable

from service.config import InboxUrl
from service.storage.protocols import Terms
from service.storage.sqlite.erasure import SqliteErasure
from service.storage.sqlite.inbox import SqliteInbox
from service.storage.sqlite.log import SqliteLog

__all__ = ["SqliteErasure", "SqliteInbox", "SqliteLog", "open_erasure", "open_log", "opener", "problems"]


def problems(_url: InboxUrl) -> list[str]:
    """Say what is wrong with the URL; see `Engine`."""
    return []


def opener(url: InboxUrl, terms: Terms) -> Callable[[], SqliteInbox]:
    """Make what opens the inbox, anew each time; see `Engine`."""
    return lambda: SqliteInbox(url.path, terms)


def open_log(url: InboxUrl) -> SqliteLog:
    """Open the log; see `Engine`."""
    return SqliteLog(url.path)


def open_erasure(url: InboxUrl) -> SqliteErasure:
    """Open what erases; see `Engine`."""
    return SqliteErasure(url.path)
