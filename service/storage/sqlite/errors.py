"""Map errors of SQLite and the operating system to InboxUnavailable, each with a remedy."""

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
_ACCESS_REMEDY: Final = (
    "Make that user its owner (chown; in Kubernetes podSecurityContext.fsGroup), or mount the volume writable"
)
_FAILURES: Final[tuple[tuple[type[apsw.Error], Unavailability], ...]] = (
    (apsw.FullError, Unavailability(StorageFailure.FULL, "the volume is full: enlarge it; no restart is needed")),
    (
        apsw.BusyError,
        Unavailability(StorageFailure.LOCKED, "another process holds the lock on the database: stop that process"),
    ),
    (
        apsw.LockedError,
        Unavailability(StorageFailure.LOCKED, "another process holds the lock on the database: stop that process"),
    ),
    (
        apsw.ReadOnlyError,
        Unavailability(StorageFailure.READ_ONLY, f"it is not writable. {_ACCESS_REMEDY}", reopen=True),
    ),
    (
        apsw.PermissionsError,
        Unavailability(StorageFailure.READ_ONLY, f"it is not writable. {_ACCESS_REMEDY}", reopen=True),
    ),
    (
        apsw.CantOpenError,
        Unavailability(StorageFailure.CANNOT_OPEN, f"it can't be opened. {_ACCESS_REMEDY}", reopen=True),
    ),
    (
        apsw.CorruptError,
        Unavailability(
            StorageFailure.CORRUPT,
            "the file is damaged: move it away, then restore a backup or start with an empty inbox",
            reopen=True,
        ),
    ),
    (
        apsw.NotADBError,
        Unavailability(StorageFailure.CORRUPT, "the file is not an SQLite database: move it away", reopen=True),
    ),
    (
        apsw.SQLError,
        Unavailability(
            StorageFailure.FOREIGN,
            "the file does not contain an inbox: set WEBHOOK_INBOX to another file, or move this one away",
        ),
    ),
    (
        apsw.IOError,
        Unavailability(
            StorageFailure.IO_ERROR, "the disk reported an I/O error: check the node's kernel log", reopen=True
        ),
    ),
)
_NO_ROOM_FOR_INDEX: Final = Unavailability(
    StorageFailure.FULL, "the volume has less than 32 KiB free: enlarge it", reopen=True
)


@contextmanager
def map_errors(path: Path) -> Iterator[None]:
    """Raise InboxUnavailable instead of an error of SQLite or the system; *path* is the database's."""
    try:
        yield
    except (apsw.Error, OSError) as ex:
        raise mapped(ex, path) from ex


def mapped(ex: apsw.Error | OSError, path: Path) -> InboxUnavailable:
    """Return the InboxUnavailable for *ex*, with its remedy and whether the database must be reopened."""
    if isinstance(ex, apsw.IOError) and getattr(ex, "extendedresult", 0) == apsw.SQLITE_IOERR_SHMSIZE:
        return _NO_ROOM_FOR_INDEX.error(_code(ex))
    for kind, failure in _FAILURES:
        if isinstance(ex, kind):
            about_access = f"{access(path)}: " if failure.reason in _ABOUT_ACCESS else ""
            return replace(failure, detail=about_access + failure.detail).error(_code(ex))
    if isinstance(ex, OSError):
        failed_path = Path(str(ex.filename)) if ex.filename else path
        detail = f"{access(failed_path)}: {ex.strerror}. {_ACCESS_REMEDY}"
        return InboxUnavailable(StorageFailure.CANNOT_OPEN, detail, reopen=True)
    return InboxUnavailable(StorageFailure.ERROR, f"SQLite failed with {type(ex).__name__}: {ex}", reopen=True)


def access(path: Path) -> str:
    """Return that *path* can't be used by this process's uid, with owner and mode of the file or its directory."""
    for existing in (path, path.parent):
        try:
            status = existing.stat()
        except OSError:
            continue
        owner, mode = f"{status.st_uid}:{status.st_gid}", stat.filemode(status.st_mode)
        return f"{path} can't be used by uid {os.geteuid()} ({existing} is owned by {owner}, mode {mode})"
    return f"{path} can't be used by uid {os.geteuid()} (the directory {path.parent} does not exist)"


def _code(ex: apsw.Error | OSError) -> str:
    """Return SQLite's own name of the error: SQLITE_IOERR_FSYNC is more specific than "disk I/O error"."""
    code = getattr(ex, "extendedresult", 0)
    return str(apsw.mapping_extended_result_codes.get(code) or apsw.mapping_result_codes.get(code) or ex)
