"""A connection to the server on which every wait has a timeout."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Final, NamedTuple, Self

import psycopg
from psycopg import conninfo, errors
from psycopg.abc import RV, PQGen

from service.config import InboxUrl
from service.storage.postgresql.errors import map_errors

# The server's timeouts as fractions of ours: the server gives up first, and so reports the cause.
SERVER_TIMEOUT_FRACTIONS: Final = {"lock_timeout": 0.7, "statement_timeout": 0.9}
CONNECT_TIMEOUT_PER_HOST_SECONDS: Final = 2  # the minimum that libpq accepts
_INVALID_URL: Final = (
    "is not a URL that libpq accepts: write postgresql://user:password@host:5432/database?sslmode=verify-full, "
    "and percent-encode special characters in the password"
)


class ServerAddress(NamedTuple):
    """The server's address as libpq's connection string, with its secrets; *timeout* of a response is in seconds."""

    conninfo: str
    weak: bool
    timeout: float

    @classmethod
    def of(cls, url: InboxUrl, *, timeout: float) -> Self:
        """Return the address of the configured URL, with safe defaults for parameters that it lacks."""
        parameters = conninfo.conninfo_to_dict(_without_durability(url.text))
        defaults: dict[str, Any] = {
            "connect_timeout": CONNECT_TIMEOUT_PER_HOST_SECONDS,
            "application_name": "whatsapp-webhook",
            "client_encoding": "utf8",
        }
        if "," in str(parameters.get("host", "")):
            defaults["target_session_attrs"] = "read-write"
        return cls(conninfo.make_conninfo(**{**defaults, **parameters}), url.weak, timeout)


def problems(url: InboxUrl) -> list[str]:
    """Return the problems of the URL; see `Engine`."""
    try:
        conninfo.conninfo_to_dict(_without_durability(url.text))
    except psycopg.ProgrammingError:  # its message contains the password
        return [_INVALID_URL]
    return []


def _without_durability(text: str) -> str:
    base, mark, query = text.partition("?")
    parameters = "&".join(part for part in query.split("&") if part.partition("=")[0] != "durability")
    return base + mark + parameters


class PostgresqlConnection(psycopg.Connection[tuple[Any, ...]]):
    """A connection on which every wait ends after `wait_timeout`, even if the server is gone."""

    wait_timeout: float = 2.0  # seconds
    warning: str = ""  # the server's last warning, until it is reset

    def wait(self, gen: PQGen[RV], interval: float = 0.1, timeout: float | None = None) -> RV:
        """Wait for the server; see psycopg."""
        return super().wait(gen, interval, self.wait_timeout if timeout is None else timeout)

    @contextmanager
    def with_timeout(self, seconds: float) -> Iterator[None]:
        """Use another timeout within the block."""
        before, self.wait_timeout = self.wait_timeout, seconds
        try:
            yield
        finally:
            self.wait_timeout = before

    def store_warning(self, notice: errors.Diagnostic) -> None:
        """Store a warning: after a commit, it means that the standbys may not have the transaction."""
        if notice.severity_nonlocalized == "WARNING":
            self.warning = str(notice.message_primary)


def connect(address: ServerAddress) -> PostgresqlConnection:
    """Connect in autocommit mode, without prepared statements, so that PgBouncer can be in between.

    Raises InboxUnavailable.
    """
    with map_errors():
        db = PostgresqlConnection.connect(address.conninfo, autocommit=True, prepare_threshold=None)
        db.wait_timeout = address.timeout
        db.add_notice_handler(db.store_warning)
        # A session that waits for a lock does not notice that its client is gone: abandoned sessions would pile up.
        for setting, fraction in SERVER_TIMEOUT_FRACTIONS.items():
            db.execute(f"SET {setting} = {int(address.timeout * fraction * 1000)}")
    return db
