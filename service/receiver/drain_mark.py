"""The drain mark: a file in the run directory that says "send no more here".

`whatsapp-webhook drain` sets it, the server looks at it, the next start removes it.
"""

import os
import stat
from pathlib import Path

from service.receiver import run_directory


def mark(run_dir: Path) -> None:
    """Mark this instance as draining; raises OSError if no server made the directory, or it can't be written."""
    _path(run_dir).touch()


def clear(run_dir: Path) -> None:
    """Forget a mark that an earlier start left behind."""
    _path(run_dir).unlink(missing_ok=True)


def is_marked(run_dir: Path) -> bool:
    """Return whether the instance is draining: whether the service's user, or root, left a mark."""
    try:
        found = _path(run_dir).lstat()
    except OSError:
        return False
    return stat.S_ISREG(found.st_mode) and found.st_uid in (os.geteuid(), 0)


def _path(run_dir: Path) -> Path:
    return run_directory.own(run_dir) / "draining"
