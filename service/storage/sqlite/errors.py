"""From what SQLite and the system say to what the operator can do."""

import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Final

import apsw

from service.errors import InboxUnavailable, Unavailability
from service.outcomes import StorageFailure

_ABOUT_ACCESS: Final = (StorageFailure.READ_ONLY, StorageFailure.CANNOT_OPEN)
_ACCESS_REMEDY: Final = "Give it to that user (chown; in Kubernetes podSecurityContext.fsGroup), or mount it writable"
_FAILURES: Final[tuple[tuple[type[apsw.Error], Unavailability], ...]] = (
    (apsw.FullError, Unavailability(StorageFailure.FULL, "the volume is full: enlarge it; no restart is needed")),
    (apsw.BusyError, Unavailability(StorageFailure.LOCKED, "another process holds the database's lock: end it")),
    (apsw.LockedError, Unavailability(StorageFailure.LOCKED, "another process holds the database's lock: end it")),
    (
        apsw.ReadOnlyError,
        Unavailability(StorageFailure.READ_ONLY, f"it can't be written. {_ACCESS_REMEDY}", reopen=True),
    ),
    (
        apsw.PermissionsError,
        Unavailability(StorageFailure.READ_ONLY, f"it can't be written. {_ACCESS_REMEDY}", reopen=True),
    ),
    (
        apsw.CantOpenError,
        Unavailability(StorageFailure.CANNOT_OPEN, f"it can't be opened. {_ACCESS_REMEDY}", reopen=True),
    ),
    (
        apsw.CorruptError,
        Unavailability(
            StorageFailure.CORRUPT, "the file is damaged: move it away, restore a backup or start anew", reopen=True
        ),
    ),
    (
        apsw.NotADBError,
        Unavailability(StorageFailure.CORRUPT, "the file is no SQLite database: move it away", reopen=True),
    ),
    (
        apsw.SQLError,
        Unavailability(StorageFailure.FOREIGN, "the file holds no inbox: name another file, or move it away"),
    ),
    (
        apsw.IOError,
        Unavailability(
            StorageFailure.IO_ERROR, "the disk does not do what it is told: look at the node's log", reopen=True
        ),
    ),
)
_NO_ROOM_FOR_INDEX: Final = Unavailability(
    StorageFailure.FULL, "the volume has not even 32 KiB left: enlarge it", reopen=True
)


@contextmanager
def map_errors(path: Path) -> Iterator[None]:
    """Raise InboxUnavailable for whatever SQLite or the system raise within, about the database at *path*."""
    try:
        yield
    except (apsw.Error, OSError) as ex:
        raise mapped(ex, path) from ex


def mapped(ex: apsw.Error | OSError, path: Path) -> InboxUnavailable:
    """Return the error with its remedy, and whether the handle can still be trusted."""
    if isinstance(ex, apsw.IOError) and getattr(ex, "extendedresult", 0) == apsw.SQLITE_IOERR_SHMSIZE:
        return _NO_ROOM_FOR_INDEX.error(_code(ex))
    for kind, failure in _FAILURES:
        if isinstance(ex, kind):
            about_access = f"{access(path)}: " if failure.reason in _ABOUT_ACCESS else ""
            return replace(failure, detail=about_access + failure.detail).error(_code(ex))
    if isinstance(ex, OSError):
        where = Path(str(ex.filename)) if ex.filename else path
        detail = f"{access(where)}: {ex.strerror}. {_ACCESS_REMEDY}"
        return InboxUnavailable(StorageFailure.CANNOT_OPEN, detail, reopen=True)
    return InboxUnavailable(StorageFailure.ERROR, f"SQLite says {type(ex).__name__}: {ex}", reopen=True)


def access(path: Path) -> str:
    """Return owner and mode of the file, or of its directory, and the user that this process runs as."""
    for place in (path, path.parent):
        try:
            found = place.stat()
        except OSError:
            continue
        mode = stat.filemode(found.st_mode)
        return f"{path} can't be used by uid {os.geteuid()} ({place} is of {found.st_uid}:{found.st_gid}, {mode})"
    return f"{path} can't be used by uid {os.geteuid()} (there is no {path.parent})"


def _code(ex: apsw.Error | OSError) -> str:
    """Give SQLite's own name of the failure: SQLITE_IOERR_FSYNC says more than "disk I/O error" does."""
    code = getattr(ex, "extendedresult", 0)
    return str(apsw.mapping_extended_result_codes.get(code) or apsw.mapping_result_codes.get(code) or ex)
