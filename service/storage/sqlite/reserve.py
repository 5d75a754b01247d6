"""Room kept aside for the moment at which the volume is full: a file beside the inbox, given up to get out of it.

A WAL that was not taken in yet needs room in the database, and a purge needs room in the WAL: without any, an inbox on
a full volume could neither be opened nor drop what is too old.
"""

import os
import stat
from contextlib import suppress
from pathlib import Path
from typing import Final

MAX_BYTES: Final = 16 * 2**20
SHARE_OF_VOLUME: Final = 8  # of a small volume, at most the eighth part
MIN_BYTES: Final = 64 * 2**10  # less is of no use


class Reserve:
    """The file of one inbox; its size depends on the volume's."""

    def __init__(self, inbox: Path) -> None:
        self._path = inbox.with_name(inbox.name + "-reserve")
        self.bytes = min(MAX_BYTES, _volume_bytes(inbox.parent) // SHARE_OF_VOLUME)

    def make(self) -> None:
        """Make the file, if there is none of its size, and twice that is free."""
        if self.size() < self.bytes and free_bytes(self._path.parent) >= 2 * self.bytes:
            self.release()
            self._allocate(self.bytes)

    def make_of_what_is_left(self) -> None:
        """Make the file, if there is none, as large as there is room: the next start needs some."""
        if not self.size():
            self._allocate(min(self.bytes, free_bytes(self._path.parent)))

    def _allocate(self, size: int) -> None:
        if size < MIN_BYTES:
            return
        with suppress(OSError):  # without it nothing is lost but the way out of a full volume
            handle = os.open(self._path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
            try:
                os.posix_fallocate(handle, 0, size)
            except OSError:
                self._path.unlink()
                raise
            finally:
                os.close(handle)

    def release(self) -> bool:
        """Remove the file; return whether there was one, so that there is more room now."""
        try:
            self._path.unlink()
        except OSError:
            return False
        return True

    def size(self) -> int:
        """Return the bytes that the file takes; 0 if there is none, or something else in its place."""
        with suppress(OSError):
            found = self._path.lstat()
            return found.st_size if stat.S_ISREG(found.st_mode) else 0
        return 0


def free_bytes(directory: Path) -> int:
    """Return the bytes that this process may still write on the volume of *directory*; raises OSError."""
    found = os.statvfs(directory)
    return found.f_frsize * (found.f_bfree if os.geteuid() == 0 else found.f_bavail)


def _volume_bytes(directory: Path) -> int:
    try:
        found = os.statvfs(directory)
    except OSError:
        return 0
    return found.f_blocks * found.f_frsize
