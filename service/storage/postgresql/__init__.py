"""The PostgreSQL inbox: any number of workers and pods write one log.

`connection` knows the server, `safety` what it must promise, `schema` the tables and how they came to be, `inbox`
writes, `log` reads, `partitions` drops what is too old. Sources: https://www.postgresql.org/docs/current/wal-async-commit.html,
ddl-partitioning.html, explicit-locking.html#ADVISORY-LOCKS.
"""

from collections.abc import Callable

from service.config import InboxUrl
from service.storage.postgresql.connection import Address, problems
from service.storage.postgresql.erasure import PostgresqlErasure
from service.storage.postgresql.inbox import PostgresqlInbox
from service.storage.postgresql.log import PostgresqlLog
from service.storage.protocols import Terms

__all__ = ["PostgresqlErasure", "PostgresqlInbox", "PostgresqlLog", "open_erasure", "open_log", "opener", "problems"]

READING = 10.0  # seconds that one question may take; nobody waits for the answer but the reader


def opener(url: InboxUrl, terms: Terms) -> Callable[[], PostgresqlInbox]:
    """Make what opens the inbox, with a connection of its own each time; see `Engine`."""
    return lambda: PostgresqlInbox(Address.of(url, timeout=terms.timeout), terms)


def open_log(url: InboxUrl) -> PostgresqlLog:
    """Open the log; see `Engine`."""
    return PostgresqlLog(Address.of(url, timeout=READING))


def open_erasure(url: InboxUrl) -> PostgresqlErasure:
    """Open what erases; see `Engine`."""
    return PostgresqlErasure(Address.of(url, timeout=READING))
