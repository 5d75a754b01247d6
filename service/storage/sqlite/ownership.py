"""Check which program an SQLite file belongs to, without writing: another program's file is not changed by a byte.

SQLite can't open the file for that: even a read-only connection creates a `-shm` beside a WAL, and rolls back a journal
that a killed process left. The application id in the file's header decides, unless it is zero, as in most programs'
databases and in one of ours whose first start was killed. Then a copy is opened, with its WAL and its journal.

The file is read through SQLite's VFS: a process that closes a file loses all its POSIX locks on it, including those of
a connection to the same database (https://sqlite.org/howtocorrupt.html, section 2.2).

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
# Our id is only in the WAL until the first checkpoint. Until then the file is small: a larger one is not ours.
MAX_UNMARKED_BYTES: Final = 16 * 2**20
_REMEDY: Final = "set WEBHOOK_INBOX to another file, or move this one away"


class Owner(Enum):
    """Who a database belongs to: NOBODY if it is missing, empty, or without tables and application id."""

    OURS = auto()
    NOBODY = auto()
    OTHER = auto()


def require_ours(path: Path, application_id: int, *, pre_release_id: int | None = None) -> Owner:
    """Return OURS or NOBODY; raises InboxUnavailable if the file at *path* is another program's.

    *pre_release_id* is the application id of files that a version before the first release made: they are rejected.
    """
    owner = owner_of(path, application_id)
    if owner is Owner.OTHER and pre_release_id is not None and owner_of(path, pre_release_id) is Owner.OURS:
        raise InboxUnavailable(
            StorageFailure.OLDER,
            f"{path} was made by a version before the first release: move it away; a new file is created",
        )
    if owner is Owner.OTHER:
        raise InboxUnavailable(
            StorageFailure.FOREIGN, f"{path} is another program's database and was not changed: {_REMEDY}"
        )
    return owner


def owner_of(path: Path, application_id: int) -> Owner:
    """Return who the database at *path* belongs to.

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
    id_in_header = int.from_bytes(header[APPLICATION_ID_AT], "big")
    if id_in_header:
        return Owner.OURS if id_in_header == application_id else Owner.OTHER
    logs = [path.with_name(path.name + suffix) for suffix in ("-wal", "-journal")]
    if size + sum(file.stat().st_size for file in logs if file.exists()) > MAX_UNMARKED_BYTES:
        return Owner.OTHER
    with tempfile.TemporaryDirectory(dir=_directory_for_copies(path)) as directory:
        Path(directory, path.name).write_bytes(_read(path, size))
        for file in logs:
            with suppress(FileNotFoundError):
                shutil.copyfile(file, Path(directory, file.name))
        return _owner_of_copy(Path(directory, path.name), application_id)


def make_private(path: Path) -> None:
    """Create an empty file with mode 0600 if none exists: SQLite gives its other files the mode of this one."""
    with suppress(FileExistsError):
        os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600))


def _read(path: Path, size: int) -> bytes:
    file = apsw.VFSFile("", str(path), [apsw.SQLITE_OPEN_MAIN_DB | apsw.SQLITE_OPEN_READONLY, 0])
    try:
        return file.xRead(size, 0)
    finally:
        file.xClose()


def _directory_for_copies(path: Path) -> str | None:
    """Return a directory for copies: the file's own if there is no writable temporary directory, as in a container."""
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
    except apsw.Error:  # an unreadable database is treated as another program's
        return Owner.OTHER
    return Owner.NOBODY if is_blank else Owner.OTHER
