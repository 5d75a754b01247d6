"""Whose database a file is, judged without writing: another program's stays as it is, byte for byte.

SQLite itself cannot be asked about the file where it is: even a read-only connection makes a `-shm` beside a WAL, and
rolls a journal back that a killed process left. The file's header tells, unless its application id is zero, as it is
in most programs' databases and in one of ours whose first start was killed. Then a copy is opened, with its WAL and
its journal.

The file is read through SQLite's own layer: a process that closes a file gives up all locks that it has on it, and so
those of a connection to the same database (https://sqlite.org/howtocorrupt.html, section 2.2).

Source: https://sqlite.org/fileformat.html#the_database_header
"""

import os
import shutil
import tempfile
from contextlib import closing, suppress
from enum import Enum, auto
from pathlib import Path
from typing import Final

import apsw

from service.errors import InboxUnavailable
from service.outcomes import StorageFailure

MAGIC: Final = b"SQLite format 3\0"
HEADER_BYTES: Final = 100
APPLICATION_ID_AT: Final = slice(68, 72)
# One of ours has its id in the WAL alone until the first checkpoint, so it is small: what is larger need not be copied.
MAX_UNMARKED_BYTES: Final = 16 * 2**20
_REMEDY: Final = "name another file in WEBHOOK_INBOX, or move this one away"


class Owner(Enum):
    """Whose database a file is; nobody's if it is missing, empty, or a database without tables and without an id."""

    OURS = auto()
    NOBODY = auto()
    OTHER = auto()


def require_ours(path: Path, application_id: int, *, older: int | None = None) -> Owner:
    """Return OURS or NOBODY; raises InboxUnavailable if the file at *path* is another program's.

    *older* is the id of files that an earlier version made and this one can't read.
    """
    owner = owner_of(path, application_id)
    if owner is Owner.OTHER and older is not None and owner_of(path, older) is Owner.OURS:
        raise InboxUnavailable(
            StorageFailure.OLDER, f"{path} is of a version before the first release: move it away, a new one is made"
        )
    if owner is Owner.OTHER:
        raise InboxUnavailable(
            StorageFailure.FOREIGN, f"{path} is another program's database and was not touched: {_REMEDY}"
        )
    return owner


def owner_of(path: Path, application_id: int) -> Owner:
    """Return whose database the file at *path* is.

    Raises OSError if it cannot be read, and InboxUnavailable if it is not a database at all.
    """
    if not path.exists():
        return Owner.NOBODY
    if not path.is_file():
        raise InboxUnavailable(StorageFailure.CANNOT_OPEN, f"{path} is not a file: {_REMEDY}")
    size = path.stat().st_size
    if not size:
        return Owner.NOBODY
    header = _read(path, min(size, HEADER_BYTES))
    if not header.startswith(MAGIC):
        raise InboxUnavailable(StorageFailure.CORRUPT, f"{path} is not an SQLite database: {_REMEDY}", reopen=True)
    marked = int.from_bytes(header[APPLICATION_ID_AT], "big")
    if marked:
        return Owner.OURS if marked == application_id else Owner.OTHER
    others = [path.with_name(path.name + suffix) for suffix in ("-wal", "-journal")]
    if size + sum(file.stat().st_size for file in others if file.exists()) > MAX_UNMARKED_BYTES:
        return Owner.OTHER
    with tempfile.TemporaryDirectory(dir=_directory_for_copies(path)) as directory:
        Path(directory, path.name).write_bytes(_read(path, size))
        for file in others:
            with suppress(FileNotFoundError):
                shutil.copyfile(file, Path(directory, file.name))
        return _owner_of_copy(Path(directory, path.name), application_id)


def make_private(path: Path) -> None:
    """Make an empty file for its owner alone, if there is none: SQLite gives its other files the mode of this one."""
    with suppress(FileExistsError):
        os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600))


def _read(path: Path, size: int) -> bytes:
    file = apsw.VFSFile("", str(path), [apsw.SQLITE_OPEN_MAIN_DB | apsw.SQLITE_OPEN_READONLY, 0])
    try:
        return file.xRead(size, 0)
    finally:
        file.xClose()


def _directory_for_copies(path: Path) -> str | None:
    """Return where a copy may lie: a container's root can't be written, so it may be beside the file itself."""
    with suppress(FileNotFoundError):
        return tempfile.gettempdir()
    return str(path.parent)


def _owner_of_copy(copy: Path, application_id: int) -> Owner:
    try:
        with closing(apsw.Connection(str(copy))) as db:
            if db.pragma("application_id") == application_id:
                return Owner.OURS
            ((tables,),) = db.execute("SELECT count(*) FROM sqlite_schema")
            is_blank = not (tables or db.pragma("application_id") or db.pragma("user_version"))
    except apsw.Error:  # it can't be read, so it is none that we would go on with
        return Owner.OTHER
    return Owner.NOBODY if is_blank else Owner.OTHER
