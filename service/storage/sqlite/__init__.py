"""The SQLite inbox: a WAL that is synced before the response is sent, one writing process, any number of readers.

Sources: https://sqlite.org/wal.html (also for the WAL-reset bug, fixed in 3.51.3), https://sqlite.org/pragma.html
#pragma_synchronous. `apsw` contains its own SQLite library; Python's or the distribution's is not used.
"""

import os
from collections.abc import Callable
from typing import Final
from urllib.parse import urlsplit

from service.config import InboxUrl
from service.storage.engine import DeliveryStorage, DeliveryStore, Engine
from service.storage.protocols import Terms
from service.storage.sqlite import delivery_admin, delivery_database
from service.storage.sqlite.delivery_admin import SqliteDeliveryAdmin
from service.storage.sqlite.delivery_database import SqliteDeliveryDatabase
from service.storage.sqlite.delivery_queue import SqliteDeliveries
from service.storage.sqlite.erasure import SqliteErasure
from service.storage.sqlite.inbox import SqliteInbox
from service.storage.sqlite.log import SqliteLog

__all__ = ["ENGINE", "SqliteErasure", "SqliteInbox", "SqliteLog"]


def _problems(url: InboxUrl) -> list[str]:
    path = urlsplit(url.text).path
    if len(path) <= 1 or path.endswith("/"):
        return ["requires the path of a file, such as sqlite:///var/lib/whatsapp-webhook/inbox.db"]
    return ["is always durable with SQLite: remove ?durability=weak"] if url.weak else []


def _notes(url: InboxUrl) -> list[str]:
    directory = url.path.parent
    if os.access(directory, os.W_OK | os.X_OK):
        return []
    return [f"not ready until {directory}, the directory of the inbox, exists and is writable."]


def _inbox_opener(url: InboxUrl, terms: Terms) -> Callable[[], SqliteInbox]:
    return lambda: SqliteInbox(url.path, terms)


def _open_deliveries(url: InboxUrl) -> DeliveryStore:
    store = SqliteDeliveryDatabase(delivery_database.path_beside(url.path))
    return DeliveryStore(SqliteDeliveries(store), SqliteDeliveryAdmin(store), store.close, lambda: url)


ENGINE: Final = Engine(
    name="sqlite",
    problems=_problems,
    inbox_opener=_inbox_opener,
    open_log=lambda url: SqliteLog(url.path),
    open_erasure=lambda url: SqliteErasure(url.path),
    deliveries=DeliveryStorage(
        open=_open_deliveries,
        exists=lambda url: delivery_database.path_beside(url.path).exists(),
        location=lambda url: str(delivery_database.path_beside(url.path)),
        low_watermark=lambda url, now, policy: delivery_admin.low_watermark(
            delivery_database.path_beside(url.path), now=now, policy=policy
        ),
        heartbeat=lambda url: delivery_admin.heartbeat(delivery_database.path_beside(url.path)),
    ),
    notes=_notes,
    has_server=False,
    has_several_writers=False,
)
