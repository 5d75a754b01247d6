"""The run directory: heartbeat, drain mark, metrics of several workers.

`WEBHOOK_RUN_DIR` may be in a place where others write as well, such as `/tmp`. So it is taken only if it is ours, and
everything is in a subdirectory that only we can write: a file or a link that somebody else plants there could end our
process, or make us delete what is not ours.
"""

import os
import stat
from pathlib import Path
from typing import Final

from service.errors import ConfigurationError

_SUBDIRECTORY: Final = "whatsapp-webhook"
_PRIVATE: Final = 0o700
_REMEDY: Final = "Name a directory of the service's user, best in memory"


def own(run_dir: Path) -> Path:
    """Return the subdirectory that holds our files."""
    return run_dir / _SUBDIRECTORY


def prepare(run_dir: Path) -> None:
    """Make the run directory and the subdirectory if they are missing; raises ConfigurationError if they can't be used.

    An existing one is taken if it is of our user, or a mount that we can write (Kubernetes makes an emptyDir as root).
    """
    _make(run_dir)
    found = run_dir.lstat()
    is_ours = found.st_uid == os.geteuid() or (run_dir.is_mount() and os.access(run_dir, os.W_OK | os.X_OK))
    _require(run_dir, found, is_ours=is_ours)
    below = own(run_dir)
    _make(below)
    found = below.lstat()
    _require(below, found, is_ours=found.st_uid == os.geteuid())
    below.chmod(_PRIVATE)
    probe = below / ".probe"
    try:
        probe.touch()
        probe.unlink()
    except OSError as ex:
        raise _unusable(below, f"can't be written: {ex.strerror}") from ex


def _make(directory: Path) -> None:
    try:
        directory.mkdir(mode=_PRIVATE, parents=True)
    except FileExistsError:
        pass
    except OSError as ex:
        raise _unusable(directory, f"can't be made: {ex.strerror}") from ex


def _require(directory: Path, found: os.stat_result, *, is_ours: bool) -> None:
    if stat.S_ISLNK(found.st_mode):
        raise _unusable(directory, "is a symbolic link")
    if not stat.S_ISDIR(found.st_mode):
        raise _unusable(directory, "is not a directory")
    if not is_ours:
        raise _unusable(directory, f"belongs to uid {found.st_uid}, and the service runs as uid {os.geteuid()}")


def _unusable(directory: Path, why: str) -> ConfigurationError:
    return ConfigurationError([f"WEBHOOK_RUN_DIR: {directory} {why}. {_REMEDY}."])
