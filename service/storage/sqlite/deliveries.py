"""The relay's state in SQLite: a file beside the inbox, which is never written from here."""

from service.storage.sqlite.delivery_admin import SqliteRecords, heartbeat, needed
from service.storage.sqlite.delivery_database import NAME, Store
from service.storage.sqlite.delivery_queue import SqliteWork

__all__ = ["NAME", "SqliteRecords", "SqliteWork", "Store", "heartbeat", "needed"]
