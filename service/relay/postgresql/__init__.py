"""The relay's state as tables beside the inbox's: any number of relays share the work."""

from service.relay.postgresql.records import PostgresqlRecords, needed
from service.relay.postgresql.store import Store, exists
from service.relay.postgresql.work import PostgresqlWork

__all__ = ["PostgresqlRecords", "PostgresqlWork", "Store", "exists", "needed"]
