"""The relay's state as tables beside the inbox's: any number of relays share the work."""

from service.storage.postgresql.delivery_admin import PostgresqlRecords, heartbeat, needed
from service.storage.postgresql.delivery_claims import PostgresqlClaims
from service.storage.postgresql.delivery_database import Store, exists
from service.storage.postgresql.delivery_planning import PostgresqlPlans

__all__ = ["PostgresqlRecords", "PostgresqlWork", "Store", "exists", "heartbeat", "needed"]


class PostgresqlWork(PostgresqlPlans, PostgresqlClaims):
    """`State`, see there."""
