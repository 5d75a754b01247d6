"""A connection to the server that never waits longer than it was told."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Final, NamedTuple, Self

import psycopg
from psycopg import conninfo, errors
from psycopg.abc import RV, PQGen

from service.config import InboxUrl
from service.storage.postgresql.errors import map_errors

# Shares of the time that we wait, after which the server gives up itself, and so says why.
SERVER_TIMEOUT_SHARES: Final = {"lock_timeout": 0.7, "statement_timeout": 0.9}
CONNECT_TIMEOUT_PER_HOST_SECONDS: Final = 2  # seconds a host; libpq takes no less
_NO_URL: Final = (
    "is no URL that libpq takes: write postgresql://user:password@host:5432/database?sslmode=verify-full, "
    "and percent-encode what is odd in the password"
)


class ServerAddress(NamedTuple):
    """Where the server is, as libpq wants it, secrets and all; how long it may take to answer, in seconds."""

    conninfo: str
    weak: bool
    timeout: float

    @classmethod
    def of(cls, url: InboxUrl, *, timeout: float) -> Self:
        """Take it from the configured URL; what it does not say is what is safe."""
        given = conninfo.conninfo_to_dict(_without_durability(url.text))
        more: dict[str, Any] = {
            "connect_timeout": CONNECT_TIMEOUT_PER_HOST_SECONDS,
            "application_name": "whatsapp-webhook",
            "client_encoding": "utf8",
        }
        if "," in str(given.get("host", "")):
            more["target_session_attrs"] = "read-write"
        return cls(conninfo.make_conninfo(**{**more, **given}), url.weak, timeout)


def problems(url: InboxUrl) -> list[str]:
    """Say what is wrong with the URL; see `Engine`."""
    try:
        conninfo.conninfo_to_dict(_without_durability(url.text))
    except psycopg.ProgrammingError:  # whose text says the password again
        return [_NO_URL]
    return []


def _without_durability(text: str) -> str:
    where, mark, query = text.partition("?")
    kept = "&".join(part for part in query.split("&") if part.partition("=")[0] != "durability")
    return where + mark + kept


class PostgresqlConnection(psycopg.Connection[tuple[Any, ...]]):
    """A connection on which nothing waits longer than `patience`, whatever became of the server."""

    patience: float = 2.0  # seconds
    warned: str = ""  # by the server, since it was last set to nothing

    def wait(self, gen: PQGen[RV], interval: float = 0.1, timeout: float | None = None) -> RV:
        """Wait for the server; see psycopg."""
        return super().wait(gen, interval, self.patience if timeout is None else timeout)

    @contextmanager
    def patient(self, seconds: float) -> Iterator[None]:
        """Wait for as long as that within."""
        before, self.patience = self.patience, seconds
        try:
            yield
        finally:
            self.patience = before

    def hear(self, notice: errors.Diagnostic) -> None:
        """Remember a warning: of a commit, it says that its standbys may not have it."""
        if notice.severity_nonlocalized == "WARNING":
            self.warned = str(notice.message_primary)


def connect(address: ServerAddress) -> PostgresqlConnection:
    """Connect; each statement is a transaction of its own, and none is prepared (so that PgBouncer may be between).

    Raises InboxUnavailable.
    """
    with map_errors():
        db = PostgresqlConnection.connect(address.conninfo, autocommit=True, prepare_threshold=None)
        db.patience = address.timeout
        db.add_notice_handler(db.hear)
        # A session that waits for a lock does not see that we are gone; those that come after would fill the server.
        for setting, share in SERVER_TIMEOUT_SHARES.items():
            db.execute(f"SET {setting} = {int(address.timeout * share * 1000)}")
    return db
