"""The relay's state in SQLite: a file beside the inbox, which is never written from here."""

from service.relay.sqlite.records import SqliteRecords, heartbeat, needed
from service.relay.sqlite.store import NAME, Store
from service.relay.sqlite.work import SqliteWork

__all__ = ["NAME", "SqliteRecords", "SqliteWork", "Store", "heartbeat", "needed"]
