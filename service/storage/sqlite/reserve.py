"""Space reserved for a full volume: a file beside the inbox, deleted when a checkpoint or a purge needs its room.

A checkpoint needs room in the database, and a purge needs room in the WAL: without any, an inbox on a full volume could
neither be opened nor purge old events.
"""

import os
import stat
from contextlib import suppress
from pathlib import Path
from typing import Final

MAX_BYTES: Final = 16 * 2**20
MAX_FRACTION_OF_VOLUME: Final = 8  # the reserve takes at most one eighth of a small volume
MIN_BYTES: Final = 64 * 2**10  # a smaller reserve would not help


class Reserve:
    """The reserve of one inbox; its size depends on the volume's size."""

    def __init__(self, inbox: Path) -> None:
        self._path = inbox.with_name(inbox.name + "-reserve")
        self.bytes = min(MAX_BYTES, _volume_bytes(inbox.parent) // MAX_FRACTION_OF_VOLUME)

    def make(self) -> None:
        """Create the file unless it has its full size already; only if twice that size is free."""
        if self.size() < self.bytes and free_bytes(self._path.parent) >= 2 * self.bytes:
            self.release()
            self._allocate(self.bytes)

    def make_from_free_space(self) -> None:
        """Create the file if there is none, as large as free space allows: the next start needs some room."""
        if not self.size():
            self._allocate(min(self.bytes, free_bytes(self._path.parent)))

    def _allocate(self, size: int) -> None:
        if size < MIN_BYTES:
            return
        with suppress(OSError):  # without a reserve only the recovery from a full volume is lost
            handle = os.open(self._path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
            try:
                os.posix_fallocate(handle, 0, size)
            except OSError:
                self._path.unlink()
                raise
            finally:
                os.close(handle)

    def release(self) -> bool:
        """Remove the file; return whether there was one, and so whether room was freed."""
        try:
            self._path.unlink()
        except OSError:
            return False
        return True

    def size(self) -> int:
        """Return the size of the file in bytes; 0 if there is none, or its path is not a regular file."""
        with suppress(OSError):
            status = self._path.lstat()
            return status.st_size if stat.S_ISREG(status.st_mode) else 0
        return 0


def free_bytes(directory: Path) -> int:
    """Return the bytes that this process can still write on the volume of *directory*; raises OSError."""
    volume = os.statvfs(directory)
    return volume.f_frsize * (volume.f_bfree if os.geteuid() == 0 else volume.f_bavail)


def _volume_bytes(directory: Path) -> int:
    try:
        volume = os.statvfs(directory)
    except OSError:
        return 0
    return volume.f_blocks * volume.f_frsize
