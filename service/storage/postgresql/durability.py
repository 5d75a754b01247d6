"""What the server must promise, before anybody is told 200."""

from typing import Final

from service.errors import InboxUnavailable
from service.outcomes import StorageFailure
from service.storage.postgresql.connection import PostgresqlConnection

# What each setting may be. `local` and `remote_write` wait for less than a standby's disk where there is one.
_SAFE: Final = {
    "fsync": ("on",),
    "full_page_writes": ("on",),
    "synchronous_commit": ("on", "remote_apply"),
    "default_transaction_read_only": ("off",),
    "default_transaction_isolation": ("read committed",),
}
_WHY: Final = {
    "fsync": "a crash loses, or damages, what was committed: set it on in postgresql.conf",
    "full_page_writes": "a power cut damages pages that were half written: set it on in postgresql.conf",
    "synchronous_commit": "a commit is told before it is on the disks: ALTER DATABASE or ROLE ... RESET it",
}
_QUESTION: Final = f"""
    VALUES {", ".join(f"('{name}', current_setting('{name}'))" for name in _SAFE)}
    UNION ALL SELECT 'standby', pg_is_in_recovery()::text
    UNION ALL SELECT 'encoding', pg_encoding_to_char(encoding) FROM pg_database WHERE datname = current_database()
    UNION ALL SELECT 'table ' || relname, relpersistence::text FROM pg_class
      WHERE relnamespace = to_regnamespace('whatsapp_webhook') AND relkind IN ('r', 'p', 'S') AND relpersistence <> 'p'
"""


def require(db: PostgresqlConnection, *, weak: bool) -> None:
    """Raise InboxUnavailable where what is committed might not survive, unless somebody wants it *weak*."""
    found = dict(db.execute(_QUESTION).fetchall())
    if found["standby"] == "true":
        raise InboxUnavailable(
            StorageFailure.READ_ONLY, "the server is a standby: name the primary, or all hosts", reopen=True
        )
    if found["default_transaction_read_only"] != "off":
        raise InboxUnavailable(
            StorageFailure.READ_ONLY, "the server takes no writes: default_transaction_read_only is on"
        )
    if found["encoding"] != "UTF8":
        raise InboxUnavailable(
            StorageFailure.UNSAFE, f"the database's encoding is {found['encoding']}: make one with UTF8"
        )
    if found["default_transaction_isolation"] != "read committed":
        raise InboxUnavailable(
            StorageFailure.UNSAFE,
            "default_transaction_isolation must be read committed: ALTER DATABASE or ROLE ... RESET it",
        )
    if weak:
        return
    for name, safe in _SAFE.items():
        if found[name] not in safe:
            raise InboxUnavailable(
                StorageFailure.UNSAFE,
                f"{name} is {found[name]}: {_WHY[name]}, or say ?durability=weak where that is wanted",
            )
    unlogged = sorted(name.partition(" ")[2] for name in found if name.startswith("table "))
    if unlogged:
        raise InboxUnavailable(
            StorageFailure.UNSAFE, f"{unlogged[0]} is unlogged, a crash empties it: ALTER TABLE ... SET LOGGED"
        )
