"""The durability check: reject server settings that could lose an event that was answered 200."""

from typing import Final

from service.errors import InboxUnavailable
from service.outcomes import StorageFailure
from service.storage.postgresql.connection import PostgresqlConnection

# The accepted values of each setting. `local` and `remote_write` do not wait for a standby's disk.
_SAFE_VALUES: Final = {
    "fsync": ("on",),
    "full_page_writes": ("on",),
    "synchronous_commit": ("on", "remote_apply"),
    "default_transaction_read_only": ("off",),
    "default_transaction_isolation": ("read committed",),
}
_RISKS: Final = {
    "fsync": "a crash can lose or damage committed events: set it to on in postgresql.conf",
    "full_page_writes": "a power failure damages pages that were half written: set it to on in postgresql.conf",
    "synchronous_commit": "a commit is acknowledged before it is on the disks: ALTER DATABASE or ROLE ... RESET it",
}
_QUERY: Final = f"""
    VALUES {", ".join(f"('{name}', current_setting('{name}'))" for name in _SAFE_VALUES)}
    UNION ALL SELECT 'standby', pg_is_in_recovery()::text
    UNION ALL SELECT 'encoding', pg_encoding_to_char(encoding) FROM pg_database WHERE datname = current_database()
    UNION ALL SELECT 'table ' || relname, relpersistence::text FROM pg_class
      WHERE relnamespace = to_regnamespace('whatsapp_webhook') AND relkind IN ('r', 'p', 'S') AND relpersistence <> 'p'
"""


def require(db: PostgresqlConnection, *, weak: bool) -> None:
    """Raise InboxUnavailable if events can't be written, or could be lost after a commit unless *weak* accepts that."""
    current = dict(db.execute(_QUERY).fetchall())
    if current["standby"] == "true":
        raise InboxUnavailable(
            StorageFailure.READ_ONLY,
            "the server is a standby: name the primary, or all hosts, in WEBHOOK_INBOX",
            reopen=True,
        )
    if current["default_transaction_read_only"] != "off":
        raise InboxUnavailable(
            StorageFailure.READ_ONLY,
            "the server accepts no writes: default_transaction_read_only is on, set it to off",
        )
    if current["encoding"] != "UTF8":
        raise InboxUnavailable(
            StorageFailure.UNSAFE, f"the database's encoding is {current['encoding']}: create one with UTF8"
        )
    if current["default_transaction_isolation"] != "read committed":
        raise InboxUnavailable(
            StorageFailure.UNSAFE,
            "default_transaction_isolation must be read committed: ALTER DATABASE or ROLE ... RESET it",
        )
    if weak:
        return
    for name, safe_values in _SAFE_VALUES.items():
        if current[name] not in safe_values:
            raise InboxUnavailable(
                StorageFailure.UNSAFE,
                f"{name} is {current[name]}: {_RISKS[name]}, or add ?durability=weak to WEBHOOK_INBOX to accept that",
            )
    unlogged = sorted(name.partition(" ")[2] for name in current if name.startswith("table "))
    if unlogged:
        raise InboxUnavailable(
            StorageFailure.UNSAFE,
            f"the table {unlogged[0]} is unlogged, so a crash empties it: ALTER TABLE ... SET LOGGED",
        )
