"""Map errors of libpq and the server to InboxUnavailable, each with a remedy."""

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any, Final

import psycopg
from psycopg import errors

from service.errors import InboxUnavailable, Unavailability
from service.outcomes import StorageFailure

CANCEL_TIMEOUT_SECONDS: Final = 0.3
_UNREACHABLE: Final = Unavailability(
    StorageFailure.UNREACHABLE, "the server can't be reached: is it up, and is its address right?", reopen=True
)
_DENIED: Final = Unavailability(
    StorageFailure.DENIED,
    "the server rejects the user: check the password, and the user's rights on the database",
    reopen=True,
)
_NO_DATABASE: Final = Unavailability(
    StorageFailure.CANNOT_OPEN, "the server has no such database: create it", reopen=True
)
_SLOW: Final = Unavailability(
    StorageFailure.SLOW, "the server does not respond in time: check its load and its disk", reopen=True
)
_TLS: Final = Unavailability(
    StorageFailure.TLS,
    "the TLS connection to the server failed: check sslmode, sslrootcert and the server's certificate",
    reopen=True,
)
_READ_ONLY: Final = Unavailability(
    StorageFailure.READ_ONLY, "none of the hosts accepts writes: all are standbys, or read-only", reopen=True
)
# By SQLSTATE, or by its class, which is its first two characters:
# https://www.postgresql.org/docs/current/errcodes-appendix.html
_FAILURES: Final[dict[str, Unavailability]] = {
    "53100": Unavailability(
        StorageFailure.FULL, "the server's disk is full: make room there, or shorten the retention", reopen=True
    ),
    "53300": Unavailability(
        StorageFailure.UNREACHABLE,
        "the server has no free connections: raise max_connections, or use a connection pool",
        reopen=True,
    ),
    "22": Unavailability(
        StorageFailure.ERROR,
        "an event has a value that a column can't store: it is not stored, and Meta retries it",
        alone=True,
    ),
    "53": Unavailability(StorageFailure.ERROR, "the server lacks memory or locks: check its log", reopen=True),
    "25006": Unavailability(
        StorageFailure.READ_ONLY, "the server accepts no writes: it is a standby, or was made read-only", reopen=True
    ),
    "28": _DENIED,
    "42501": Unavailability(
        StorageFailure.DENIED, "the user lacks a privilege: make it the owner of the schema whatsapp_webhook"
    ),
    "3D": Unavailability(StorageFailure.CANNOT_OPEN, "the server has no such database: create it", reopen=True),
    "57014": Unavailability(
        StorageFailure.SLOW, "the server cancelled the statement: check statement_timeout and the server's log"
    ),
    "55P03": Unavailability(
        StorageFailure.LOCKED, "another session holds a lock on the tables: terminate that session"
    ),
    "57": Unavailability(StorageFailure.UNREACHABLE, "the server is starting or stopping", reopen=True),
    "08": _UNREACHABLE,
    "58": Unavailability(
        StorageFailure.IO_ERROR, "the server reported an I/O error of its disk: check its log", reopen=True
    ),
    "XX001": Unavailability(StorageFailure.CORRUPT, "the server reports damaged data: check its log", reopen=True),
    "XX002": Unavailability(StorageFailure.CORRUPT, "the server reports a damaged index: check its log", reopen=True),
    "42P01": Unavailability(
        StorageFailure.VANISHED,
        "the tables are gone: the schema whatsapp_webhook, or a table in it, was dropped",
        reopen=True,
    ),
}
# libpq has no error code for a failed connection: an error matches if its message contains all of the words.
_MESSAGE_WORDS: Final = (
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
    """Raise InboxUnavailable instead of an error of psycopg; close *db* if the error requires a new connection."""
    try:
        yield
    except psycopg.Error as ex:
        failure = mapped(ex)
        if db is not None and isinstance(ex, errors._WaitTimeout):  # noqa: SLF001  as below
            with suppress(psycopg.Error):  # otherwise a commit that waits for a standby would keep its session open
                db.cancel_safe(timeout=CANCEL_TIMEOUT_SECONDS)
        if db is not None and failure.reopen:
            db.close()
        raise failure from ex


def mapped(ex: psycopg.Error) -> InboxUnavailable:
    """Return the InboxUnavailable for *ex*, with its remedy and whether a new connection is required."""
    if isinstance(ex, errors.ConnectionTimeout | errors._WaitTimeout):  # noqa: SLF001  raised by `wait`, without a public name
        return _SLOW.error()
    if state := ex.sqlstate or "":
        return (_FAILURES.get(state) or _FAILURES.get(state[:2]) or _unknown(ex)).error(f"SQLSTATE {state}")
    if isinstance(ex, psycopg.OperationalError):
        message = str(ex).lower()
        return next(failure for words, failure in _MESSAGE_WORDS if all(word in message for word in words)).error()
    return InboxUnavailable(StorageFailure.ERROR, f"psycopg failed with {type(ex).__name__}", reopen=True)


def _unknown(ex: psycopg.Error) -> Unavailability:
    return Unavailability(StorageFailure.ERROR, f"the server reported {type(ex).__name__}: check its log", reopen=True)
