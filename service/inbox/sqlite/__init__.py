"""The SQLite inbox: a WAL that is synced before the answer, one writing process, any number of readers.

Sources: https://sqlite.org/wal.html (also for the WAL-reset bug, fixed in 3.51.3), https://sqlite.org/pragma.html
#pragma_synchronous. `apsw` brings a library of its own; the one of Python or of the distribution is not used.
"""

from service.inbox.sqlite.erasure import SqliteErasure
from service.inbox.sqlite.inbox import SqliteInbox, opener
from service.inbox.sqlite.log import SqliteLog

__all__ = ["SqliteErasure", "SqliteInbox", "SqliteLog", "opener"]
