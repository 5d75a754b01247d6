"""From what libpq and the server say to what the operator can do."""

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any, Final

import psycopg
from psycopg import errors

from service.errors import InboxUnavailable, Unavailability
from service.outcomes import StorageFailure

CANCEL_TIMEOUT_SECONDS: Final = 0.3
_UNREACHABLE: Final = Unavailability(
    StorageFailure.UNREACHABLE, "the server can't be reached: is it up, and is this its address?", reopen=True
)
_DENIED: Final = Unavailability(
    StorageFailure.DENIED,
    "the server refuses the user: look at the password, and at the rights on the database",
    reopen=True,
)
_NO_DATABASE: Final = Unavailability(
    StorageFailure.CANNOT_OPEN, "the server has no such database: create it", reopen=True
)
_SLOW: Final = Unavailability(
    StorageFailure.SLOW, "the server does not answer in time: look at its load and its disk", reopen=True
)
_TLS: Final = Unavailability(
    StorageFailure.TLS,
    "no TLS with the server: look at sslmode, sslrootcert and the server's certificate",
    reopen=True,
)
_READ_ONLY: Final = Unavailability(
    StorageFailure.READ_ONLY, "none of the hosts takes writes: all are standbys, or read-only", reopen=True
)
# By SQLSTATE, or the class that its first two characters are:
# https://www.postgresql.org/docs/current/errcodes-appendix.html
_FAILURES: Final[dict[str, Unavailability]] = {
    "53100": Unavailability(
        StorageFailure.FULL, "the server's disk is full: make room there, or let the retention be shorter", reopen=True
    ),
    "53300": Unavailability(
        StorageFailure.UNREACHABLE,
        "the server has no connection left: raise max_connections, or pool them",
        reopen=True,
    ),
    "22": Unavailability(
        StorageFailure.ERROR, "an event holds what a column can't: Meta sends it again meanwhile", alone=True
    ),
    "53": Unavailability(StorageFailure.ERROR, "the server lacks memory or locks: look at its log", reopen=True),
    "25006": Unavailability(
        StorageFailure.READ_ONLY, "the server takes no writes: it is a standby, or was made read-only", reopen=True
    ),
    "28": _DENIED,
    "42501": Unavailability(StorageFailure.DENIED, "the user lacks a right: let it own the schema whatsapp_webhook"),
    "3D": Unavailability(StorageFailure.CANNOT_OPEN, "the server has no such database: create it", reopen=True),
    "57014": Unavailability(
        StorageFailure.SLOW, "the server cancelled the statement: look at statement_timeout and its log"
    ),
    "55P03": Unavailability(StorageFailure.LOCKED, "another session holds a lock on the tables: end it"),
    "57": Unavailability(StorageFailure.UNREACHABLE, "the server is starting or stopping", reopen=True),
    "08": _UNREACHABLE,
    "58": Unavailability(
        StorageFailure.IO_ERROR, "the server's disk does not do what it is told: look at its log", reopen=True
    ),
    "XX001": Unavailability(StorageFailure.CORRUPT, "the server finds its data damaged: look at its log", reopen=True),
    "XX002": Unavailability(StorageFailure.CORRUPT, "the server finds an index damaged: look at its log", reopen=True),
    "42P01": Unavailability(
        StorageFailure.VANISHED, "the tables are gone: somebody dropped the schema whatsapp_webhook", reopen=True
    ),
}
# libpq has no code for why a connection was not made: all of these words, in what it says.
_WORDS: Final = (
    (("authentication",), _DENIED),
    (("no pg_hba.conf entry",), _DENIED),
    (("no password",), _DENIED),
    (("does not exist", "database"), _NO_DATABASE),
    (("certificate",), _TLS),
    (("ssl",), _TLS),
    (("read-write",), _READ_ONLY),
    (("read-only",), _READ_ONLY),
    ((), _UNREACHABLE),
)


@contextmanager
def map_errors(db: psycopg.Connection[Any] | None = None) -> Iterator[None]:
    """Raise InboxUnavailable for whatever psycopg raises within; what *db* was at is undone, or it is closed."""
    try:
        yield
    except psycopg.Error as ex:
        failure = mapped(ex)
        if db is not None and isinstance(ex, errors._WaitTimeout):  # noqa: SLF001  as below
            with suppress(psycopg.Error):  # a commit that waits for a standby would keep its session
                db.cancel_safe(timeout=CANCEL_TIMEOUT_SECONDS)
        if db is not None and failure.reopen:
            db.close()
        raise failure from ex


def mapped(ex: psycopg.Error) -> InboxUnavailable:
    """Return the error with its remedy, and whether the connection can still be trusted."""
    if isinstance(ex, errors.ConnectionTimeout | errors._WaitTimeout):  # noqa: SLF001  what `wait` raises has no other name
        return _SLOW.error()
    if state := ex.sqlstate or "":
        return (_FAILURES.get(state) or _FAILURES.get(state[:2]) or _unknown(ex)).error(f"SQLSTATE {state}")
    if isinstance(ex, psycopg.OperationalError):
        said = str(ex).lower()
        return next(failure for words, failure in _WORDS if all(word in said for word in words)).error()
    return InboxUnavailable(StorageFailure.ERROR, f"psycopg says {type(ex).__name__}", reopen=True)


def _unknown(ex: psycopg.Error) -> Unavailability:
    return Unavailability(StorageFailure.ERROR, f"the server says {type(ex).__name__}: look at its log", reopen=True)
