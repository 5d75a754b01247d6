"""Whose database a file is, judged without writing: another program's stays as it is, byte for byte.

SQLite itself cannot be asked about the file where it is: even a read-only connection makes a `-shm` beside a WAL, and
rolls a journal back that a killed process left. The file's header tells, unless its application id is zero, as it is
in most programs' databases and in one of ours whose first start was killed. Then a copy is opened, with its WAL and
its journal.

Source: https://sqlite.org/fileformat.html#the_database_header
"""

import shutil
import tempfile
from contextlib import closing, suppress
from enum import Enum, auto
from pathlib import Path
from typing import Final

import apsw

from service.errors import InboxUnavailable

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


def require_ours(path: Path, application_id: int) -> Owner:
    """Return OURS or NOBODY; raises InboxUnavailable if the file at *path* is another program's."""
    owner = owner_of(path, application_id)
    if owner is Owner.OTHER:
        raise InboxUnavailable("foreign", f"{path} is another program's database and was not touched: {_REMEDY}")
    return owner


def owner_of(path: Path, application_id: int) -> Owner:
    """Return whose database the file at *path* is.

    Raises OSError if it cannot be read, and InboxUnavailable if it is not a database at all.
    """
    try:
        with path.open("rb") as opened:
            header = opened.read(HEADER_BYTES)
    except FileNotFoundError:
        return Owner.NOBODY
    if not header:
        return Owner.NOBODY
    if not header.startswith(MAGIC):
        raise InboxUnavailable("corrupt", f"{path} is not an SQLite database: {_REMEDY}", reopen=True)
    marked = int.from_bytes(header[APPLICATION_ID_AT], "big")
    if marked:
        return Owner.OURS if marked == application_id else Owner.OTHER
    files = [path, *(path.with_name(path.name + suffix) for suffix in ("-wal", "-journal"))]
    if sum(file.stat().st_size for file in files if file.exists()) > MAX_UNMARKED_BYTES:
        return Owner.OTHER
    with tempfile.TemporaryDirectory(dir=_directory_for_copies(path)) as directory:
        for file in files:
            with suppress(FileNotFoundError):
                shutil.copyfile(file, Path(directory, file.name))
        return _owner_of_copy(Path(directory, path.name), application_id)


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
