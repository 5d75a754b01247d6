"""From what SQLite and the system say to what the operator can do."""

import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

import apsw

from service.errors import FULL, InboxUnavailable

_ABOUT_ACCESS: Final = ("read_only", "cannot_open")
_ACCESS_REMEDY: Final = "Give it to that user (chown; in Kubernetes podSecurityContext.fsGroup), or mount it writable"
_REASONS: Final[tuple[tuple[type[apsw.Error], str, str, bool], ...]] = (
    (apsw.FullError, "full", "the volume is full: enlarge it; no restart is needed", False),
    (apsw.BusyError, "locked", "another process holds the database's lock: end it", False),
    (apsw.LockedError, "locked", "another process holds the database's lock: end it", False),
    (apsw.ReadOnlyError, "read_only", f"it can't be written. {_ACCESS_REMEDY}", True),
    (apsw.PermissionsError, "read_only", f"it can't be written. {_ACCESS_REMEDY}", True),
    (apsw.CantOpenError, "cannot_open", f"it can't be opened. {_ACCESS_REMEDY}", True),
    (apsw.CorruptError, "corrupt", "the file is damaged: move it away, restore a backup or start anew", True),
    (apsw.NotADBError, "corrupt", "the file is no SQLite database: move it away", True),
    (apsw.SQLError, "foreign", "the file holds no inbox: name another file, or move it away", False),
    (apsw.IOError, "io_error", "the disk does not do what it is told: look at the node's log", True),
)


@contextmanager
def translating(path: Path) -> Iterator[None]:
    """Raise InboxUnavailable for whatever SQLite or the system raise within, about the database at *path*."""
    try:
        yield
    except (apsw.Error, OSError) as ex:
        raise translated(ex, path) from ex


def translated(ex: apsw.Error | OSError, path: Path) -> InboxUnavailable:
    """Return why, with the remedy, and whether the handle is still to be trusted."""
    if isinstance(ex, apsw.IOError) and getattr(ex, "extendedresult", 0) == apsw.SQLITE_IOERR_SHMSIZE:
        return InboxUnavailable(FULL, f"the volume has not even 32 KiB left: enlarge it ({_code(ex)})", reopen=True)
    for kind, reason, remedy, reopen in _REASONS:
        if isinstance(ex, kind):
            if reason in _ABOUT_ACCESS:
                return InboxUnavailable(reason, f"{access(path)}: {remedy} ({_code(ex)})", reopen=reopen)
            return InboxUnavailable(reason, f"{remedy} ({_code(ex)})", reopen=reopen)
    if isinstance(ex, OSError):
        where = Path(str(ex.filename)) if ex.filename else path
        detail = f"{access(where)}: {ex.strerror}. {_ACCESS_REMEDY}"
        return InboxUnavailable("cannot_open", detail, reopen=True)
    return InboxUnavailable("error", f"SQLite says {type(ex).__name__}: {ex}", reopen=True)


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
