"""The PostgreSQL inbox: any number of workers and pods write one log.

`connection` connects to the server, `durability` checks its settings, `schema` has the tables and their migrations,
`inbox` is the writer, `log` the reader, `partitions` purges. Sources:
https://www.postgresql.org/docs/current/wal-async-commit.html, ddl-partitioning.html,
explicit-locking.html#ADVISORY-LOCKS.
"""

from collections.abc import Callable
from typing import Final

from service.config import InboxUrl
from service.storage.engine import DeliveryStorage, DeliveryStore, Engine
from service.storage.postgresql import connection, delivery_admin, delivery_database
from service.storage.postgresql.connection import ServerAddress
from service.storage.postgresql.delivery_admin import PostgresqlDeliveryAdmin
from service.storage.postgresql.delivery_claims import PostgresqlDeliveryClaims
from service.storage.postgresql.delivery_database import PostgresqlDeliveryDatabase
from service.storage.postgresql.delivery_planning import PostgresqlDeliveryPlanning
from service.storage.postgresql.erasure import PostgresqlErasure
from service.storage.postgresql.inbox import PostgresqlInbox
from service.storage.postgresql.log import PostgresqlLog
from service.storage.protocols import Terms

__all__ = ["ENGINE", "PostgresqlDeliveries", "PostgresqlInbox"]

READ_TIMEOUT_SECONDS: Final = 10.0  # of one query; no notification waits for it


class PostgresqlDeliveries(PostgresqlDeliveryPlanning, PostgresqlDeliveryClaims):
    """Implements `DeliveryState`."""


def _inbox_opener(url: InboxUrl, terms: Terms) -> Callable[[], PostgresqlInbox]:
    return lambda: PostgresqlInbox(ServerAddress.of(url, timeout=terms.timeout), terms)


def _open_deliveries(url: InboxUrl) -> DeliveryStore:
    store = PostgresqlDeliveryDatabase(url)
    return DeliveryStore(PostgresqlDeliveries(store), PostgresqlDeliveryAdmin(store), store.close, lambda: store.url)


ENGINE: Final = Engine(
    name="postgresql",
    problems=connection.problems,
    inbox_opener=_inbox_opener,
    open_log=lambda url: PostgresqlLog(ServerAddress.of(url, timeout=READ_TIMEOUT_SECONDS)),
    open_erasure=lambda url: PostgresqlErasure(ServerAddress.of(url, timeout=READ_TIMEOUT_SECONDS)),
    deliveries=DeliveryStorage(
        open=_open_deliveries,
        exists=delivery_database.exists,
        location=lambda url: f"relay state in {url}",
        low_watermark=lambda url, now, policy: delivery_admin.low_watermark(url, now=now, policy=policy),
        heartbeat=delivery_admin.heartbeat,
    ),
)
