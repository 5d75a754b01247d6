"""From what SQLite and the system say to what the operator can do."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

import apsw

from service.errors import InboxUnavailable

_REASONS: Final[tuple[tuple[type[apsw.Error], str, str, bool], ...]] = (
    (apsw.FullError, "full", "the volume is full: enlarge it; no restart is needed", False),
    (apsw.BusyError, "locked", "another process holds the database's lock: end it", False),
    (apsw.LockedError, "locked", "another process holds the database's lock: end it", False),
    (apsw.ReadOnlyError, "read_only", "the file or its directory can't be written: mend its owner or mount", True),
    (apsw.PermissionsError, "read_only", "the file or its directory can't be written: mend its owner or mount", True),
    (apsw.CantOpenError, "cannot_open", "the file can't be opened: see that its directory is there and writable", True),
    (apsw.CorruptError, "corrupt", "the file is damaged: move it away, restore a backup or start anew", True),
    (apsw.NotADBError, "corrupt", "the file is no SQLite database: move it away", True),
    (apsw.SQLError, "foreign", "the file holds no inbox: name another file, or move it away", False),
    (apsw.IOError, "io_error", "the disk does not do what it is told: look at the node's log", True),
)


@contextmanager
def translating() -> Iterator[None]:
    """Raise InboxUnavailable for whatever SQLite or the system raise within."""
    try:
        yield
    except (apsw.Error, OSError) as ex:
        raise translated(ex) from ex


def translated(ex: apsw.Error | OSError) -> InboxUnavailable:
    """Say why, with the remedy, and whether the handle is still to be trusted."""
    for kind, reason, remedy, reopen in _REASONS:
        if isinstance(ex, kind):
            return InboxUnavailable(reason, f"{remedy} ({_code(ex)})", reopen=reopen)
    if isinstance(ex, OSError):
        return InboxUnavailable("cannot_open", f"{ex.filename} can't be used ({ex.strerror})", reopen=True)
    return InboxUnavailable("error", f"SQLite says {type(ex).__name__}: {ex}", reopen=True)


def _code(ex: apsw.Error | OSError) -> str:
    """Give SQLite's own name of the failure: SQLITE_IOERR_FSYNC says more than "disk I/O error" does."""
    code = getattr(ex, "extendedresult", 0)
    return str(apsw.mapping_extended_result_codes.get(code) or apsw.mapping_result_codes.get(code) or ex)
