"""The drain mark: a file in the run directory that marks this instance as draining.

`whatsapp-webhook drain` creates it, the server checks for it, and the next start removes it.
"""

import os
import stat
from pathlib import Path

from service.receiver import run_directory


def mark(run_dir: Path) -> None:
    """Mark this instance as draining; raise OSError if no server created the directory, or it is not writable."""
    _path(run_dir).touch()


def clear(run_dir: Path) -> None:
    """Remove a mark of an earlier start."""
    _path(run_dir).unlink(missing_ok=True)


def is_marked(run_dir: Path) -> bool:
    """Return whether the instance is draining: a mark exists, and the service's user or root owns it."""
    try:
        status = _path(run_dir).lstat()
    except OSError:
        return False
    return stat.S_ISREG(status.st_mode) and status.st_uid in (os.geteuid(), 0)


def _path(run_dir: Path) -> Path:
    return run_directory.own(run_dir) / "draining"
