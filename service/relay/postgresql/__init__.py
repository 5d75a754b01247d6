"""The relay's state as tables beside the inbox's: any number of relays share the work."""

from service.relay.postgresql.claims import PostgresqlClaims
from service.relay.postgresql.plans import PostgresqlPlans
from service.relay.postgresql.records import PostgresqlRecords, heartbeat, needed
from service.relay.postgresql.store import Store, exists

__all__ = ["PostgresqlRecords", "PostgresqlWork", "Store", "exists", "heartbeat", "needed"]


class PostgresqlWork(PostgresqlPlans, PostgresqlClaims):
    """`State`, see there."""
