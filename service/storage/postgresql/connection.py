"""A connection to the server that never waits longer than it was told, and failures in words."""

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any, Final, NamedTuple, Self

import psycopg
from psycopg import conninfo, errors
from psycopg.abc import RV, PQGen

from service.config import InboxUrl
from service.errors import InboxUnavailable

# Shares of the time that we wait, after which the server gives up itself, and so says why.
SOONER: Final = {"lock_timeout": 0.7, "statement_timeout": 0.9}
CANCELLING: Final = 0.3  # seconds
CONNECTING: Final = 2  # seconds a host; libpq takes no less
_UNREACHABLE: Final = "the server can't be reached: is it up, and is this its address?"
_DENIED: Final = "the server refuses the user: look at the password, and at the rights on the database"
_NO_URL: Final = (
    "is no URL that libpq takes: write postgresql://user:password@host:5432/database?sslmode=verify-full, "
    "and percent-encode what is odd in the password"
)
_VALUE: Final = "22"  # what one event holds can't be held
# By SQLSTATE, or the class that its first two characters are:
# https://www.postgresql.org/docs/current/errcodes-appendix.html
_REASONS: Final[dict[str, tuple[str, str, bool]]] = {
    "53100": ("full", "the server's disk is full: make room there, or let the retention be shorter", True),
    "53300": ("unreachable", "the server has no connection left: raise max_connections, or pool them", True),
    "22": ("error", "an event holds what a column can't: Meta sends it again meanwhile", False),
    "53": ("error", "the server lacks memory or locks: look at its log", True),
    "25006": ("read_only", "the server takes no writes: it is a standby, or was made read-only", True),
    "28": ("denied", _DENIED, True),
    "42501": ("denied", "the user lacks a right: let it own the schema whatsapp_webhook", False),
    "3D": ("cannot_open", "the server has no such database: create it", True),
    "57014": ("slow", "the server cancelled the statement: look at statement_timeout and its log", False),
    "55P03": ("locked", "another session holds a lock on the tables: end it", False),
    "57": ("unreachable", "the server is starting or stopping", True),
    "08": ("unreachable", _UNREACHABLE, True),
    "58": ("io_error", "the server's disk does not do what it is told: look at its log", True),
    "XX001": ("corrupt", "the server finds its data damaged: look at its log", True),
    "XX002": ("corrupt", "the server finds an index damaged: look at its log", True),
    "42P01": ("vanished", "the tables are gone: somebody dropped the schema whatsapp_webhook", True),
}


class Address(NamedTuple):
    """Where the server is, as libpq wants it, secrets and all; how long it may take to answer, in seconds."""

    conninfo: str
    weak: bool
    timeout: float

    @classmethod
    def of(cls, url: InboxUrl, *, timeout: float) -> Self:
        """Take it from the configured URL; what it does not say is what is safe."""
        given = conninfo.conninfo_to_dict(_without_durability(url.text))
        more: dict[str, Any] = {
            "connect_timeout": CONNECTING,
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


class Connection(psycopg.Connection[tuple[Any, ...]]):
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


def connect(address: Address) -> Connection:
    """Connect; each statement is a transaction of its own, and none is prepared (so that PgBouncer may be between).

    Raises InboxUnavailable.
    """
    with translating():
        db = Connection.connect(address.conninfo, autocommit=True, prepare_threshold=None)
        db.patience = address.timeout
        db.add_notice_handler(db.hear)
        # A session that waits for a lock does not see that we are gone; those that come after would fill the server.
        for setting, share in SOONER.items():
            db.execute(f"SET {setting} = {int(address.timeout * share * 1000)}")
    return db


@contextmanager
def translating(db: psycopg.Connection[Any] | None = None) -> Iterator[None]:
    """Raise InboxUnavailable for whatever psycopg raises within; what *db* was at is undone, or it is closed."""
    try:
        yield
    except psycopg.Error as ex:
        trouble = translated(ex)
        if db is not None and isinstance(ex, errors._WaitTimeout):  # noqa: SLF001  as below
            with suppress(psycopg.Error):  # a commit that waits for a standby would keep its session
                db.cancel_safe(timeout=CANCELLING)
        if db is not None and trouble.reopen:
            db.close()
        raise trouble from ex


def translated(ex: psycopg.Error) -> InboxUnavailable:
    """Say why, with the remedy, and whether the connection is still to be trusted."""
    if isinstance(ex, errors.ConnectionTimeout | errors._WaitTimeout):  # noqa: SLF001  what `wait` raises has no other name
        return InboxUnavailable(
            "slow", "the server does not answer in time: look at its load and its disk", reopen=True
        )
    state = ex.sqlstate or ""
    if state:
        reason, remedy, reopen = _REASONS.get(state) or _REASONS.get(state[:2]) or _unknown(ex)
        return InboxUnavailable(reason, f"{remedy} (SQLSTATE {state})", reopen=reopen, alone=state[:2] == _VALUE)
    if isinstance(ex, psycopg.OperationalError):
        return InboxUnavailable(*_refused_by(str(ex)), reopen=True)
    return InboxUnavailable("error", f"psycopg says {type(ex).__name__}", reopen=True)


def _unknown(ex: psycopg.Error) -> tuple[str, str, bool]:
    return "error", f"the server says {type(ex).__name__}: look at its log", True


def _refused_by(text: str) -> tuple[str, str]:
    """Read why a connection did not come to be: libpq has a code for none of it."""
    said = text.lower()
    if "authentication" in said or "no pg_hba.conf entry" in said or "no password" in said:
        return "denied", _DENIED
    if "does not exist" in said and "database" in said:
        return "cannot_open", "the server has no such database: create it"
    if "certificate" in said or "ssl" in said:
        return "tls", "no TLS with the server: look at sslmode, sslrootcert and the server's certificate"
    if "read-write" in said or "read-only" in said:
        return "read_only", "none of the hosts takes writes: all are standbys, or read-only"
    return "unreachable", _UNREACHABLE
