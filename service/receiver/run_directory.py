"""The run directory: heartbeat, drain mark, metrics of several workers.

`WEBHOOK_RUN_DIR` may be in a directory that other users can write, such as `/tmp`. So it is used only if the service's
user owns it, and all files are in a subdirectory that only this user can write. Otherwise a file or link that another
user creates there could crash the service, or make it delete unrelated files.
"""

import os
import stat
from pathlib import Path
from typing import Final

from service.errors import ConfigurationError

_SUBDIRECTORY: Final = "whatsapp-webhook"
_PRIVATE: Final = 0o700
_REMEDY: Final = "Use a directory that the service's user owns, preferably on tmpfs"


def own(run_dir: Path) -> Path:
    """Return the subdirectory for the service's files."""
    return run_dir / _SUBDIRECTORY


def prepare(run_dir: Path) -> None:
    """Create the run directory and the subdirectory if missing; raise ConfigurationError if they can't be used.

    An existing directory is accepted if the service's user owns it, or if it is a writable mount point (Kubernetes
    creates an emptyDir as root).
    """
    _create(run_dir)
    status = run_dir.lstat()
    is_accepted = status.st_uid == os.geteuid() or (run_dir.is_mount() and os.access(run_dir, os.W_OK | os.X_OK))
    _require(run_dir, status, is_accepted=is_accepted)
    subdirectory = own(run_dir)
    _create(subdirectory)
    status = subdirectory.lstat()
    _require(subdirectory, status, is_accepted=status.st_uid == os.geteuid())
    subdirectory.chmod(_PRIVATE)
    probe = subdirectory / ".probe"
    try:
        probe.touch()
        probe.unlink()
    except OSError as ex:
        raise _unusable(subdirectory, f"can't be written: {ex.strerror}") from ex


def _create(directory: Path) -> None:
    try:
        directory.mkdir(mode=_PRIVATE, parents=True)
    except FileExistsError:
        pass
    except OSError as ex:
        raise _unusable(directory, f"can't be created: {ex.strerror}") from ex


def _require(directory: Path, status: os.stat_result, *, is_accepted: bool) -> None:
    if stat.S_ISLNK(status.st_mode):
        raise _unusable(directory, "is a symbolic link")
    if not stat.S_ISDIR(status.st_mode):
        raise _unusable(directory, "is not a directory")
    if not is_accepted:
        raise _unusable(directory, f"belongs to uid {status.st_uid}, but the service runs as uid {os.geteuid()}")


def _unusable(directory: Path, reason: str) -> ConfigurationError:
    return ConfigurationError([f"WEBHOOK_RUN_DIR: {directory} {reason}. {_REMEDY}."])
