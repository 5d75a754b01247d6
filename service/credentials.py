"""The credentials in force: verify tokens and app secrets, read from mounted files.

A directory with the files `verify-token` and `app-secret`, one to four values each, one a line, the current one
first; `log-key` is optional, and so is `access-token`, for the commands that ask Meta. Kubernetes lays a mounted
Secret so: each name is a link through `..data`, which the kubelet swaps by a rename. The files are read again and
compared by content, so no clock of a file system and no watcher can hide a change.
"""

import errno
import os
import stat
from dataclasses import dataclass
from pathlib import Path

VERIFY_TOKEN = "verify-token"  # noqa: S105  the name of a file
APP_SECRET = "app-secret"  # noqa: S105  the name of a file
LOG_KEY = "log-key"
ACCESS_TOKEN = "access-token"  # noqa: S105  the name of a file; a server does not read it
MOST_VALUES = 4
MOST_NAMES = 10
MOST_BYTES = 65536


@dataclass(frozen=True, slots=True)
class Credentials:
    """What is in force now, the current value first; empty means none."""

    verify_tokens: tuple[bytes, ...] = ()
    app_secrets: tuple[bytes, ...] = ()
    log_key: bytes | None = None


class CredentialsDirectory:
    """Keeps the last good values of a directory that may change, vanish or break at any time."""

    def __init__(self, path: Path, *, hint: str = "") -> None:
        self._path = path
        self.hint = hint
        self.current = Credentials()
        self.problems: tuple[str, ...] = ()
        self._strangers = ""

    def look(self) -> bool:
        """Read the files again; say whether the values in force changed.

        What can't be read or holds no value leaves the last good values in force and is in `problems`.
        """
        problems: list[str] = []
        read = Credentials(
            verify_tokens=self._values(VERIFY_TOKEN, problems) or self.current.verify_tokens,
            app_secrets=self._values(APP_SECRET, problems) or self.current.app_secrets,
            log_key=self._log_key(),
        )
        self.problems = tuple(problems)
        self._strangers = self._strange_names() if problems else ""
        changed, self.current = read != self.current, read
        return changed

    @property
    def stale(self) -> bool:
        """Say whether values are in force that the files no longer give."""
        return bool(self.problems) and self.missing is None

    @property
    def missing(self) -> str | None:
        """Say what is still awaited, with the hint where to put it; None once both kinds are in force."""
        if self.current.verify_tokens and self.current.app_secrets:
            return None
        return " ".join(filter(None, ["; ".join(self.problems) + ".", self._strangers, self.hint]))

    def _strange_names(self) -> str:
        """Say which other files are there: a name that is nearly right is then seen."""
        try:
            names = {file.name for file in self._path.iterdir() if not file.name.startswith(".")}
        except OSError:
            return ""
        others = sorted(names - {VERIFY_TOKEN, APP_SECRET, LOG_KEY, ACCESS_TOKEN})
        return f"There is {', '.join(others[:MOST_NAMES])}, which is none of them." if others else ""

    def _values(self, name: str, problems: list[str]) -> tuple[bytes, ...]:
        file = self._path / name
        try:
            values = values_in(content_of(file))
        except OSError as ex:
            problems.append(f"{file} can't be read ({ex.strerror})")
            return ()
        if not values:
            problems.append(f"{file} holds no value")
        elif len(values) > MOST_VALUES:
            problems.append(f"{file} holds more than {MOST_VALUES} values")
            return ()
        return values

    def _log_key(self) -> bytes | None:
        try:
            values = values_in(content_of(self._path / LOG_KEY))
        except OSError:
            return self.current.log_key
        return values[0] if values else self.current.log_key


def content_of(file: Path) -> bytes:
    """Read a file that anybody may have put there: a pipe must not block, nor a huge one fill the memory."""
    descriptor = os.open(file, os.O_RDONLY | os.O_NONBLOCK)
    try:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            raise OSError(errno.EINVAL, "not a regular file")
        with open(descriptor, "rb", closefd=False) as stream:
            content = stream.read(MOST_BYTES + 1)
    finally:
        os.close(descriptor)
    if len(content) > MOST_BYTES:
        raise OSError(errno.EFBIG, f"above {MOST_BYTES} bytes")
    return content


def values_in(content: bytes) -> tuple[bytes, ...]:
    """Read the values of a credentials file, one a line, each once, without BOM, CRLF, blank lines and edges."""
    lines = content.removeprefix(b"\xef\xbb\xbf").splitlines()
    return tuple(dict.fromkeys(line.strip() for line in lines if line.strip()))
