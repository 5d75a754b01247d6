"""The credentials in force: verify tokens and app secrets, read from mounted files.

A directory with the files `verify-token` and `app-secret`, one to four values each, one a line, the current one
first; `log-key` is optional. Kubernetes lays a mounted Secret so: each name is a link through `..data`, which the
kubelet swaps by a rename. The files are read again and compared by content, so no clock of a file system and no
watcher can hide a change.
"""

from dataclasses import dataclass
from pathlib import Path

VERIFY_TOKEN = "verify-token"  # noqa: S105  the name of a file
APP_SECRET = "app-secret"  # noqa: S105  the name of a file
LOG_KEY = "log-key"
MOST_VALUES = 4
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
        self._hint = hint
        self.current = Credentials()
        self.problems: tuple[str, ...] = ()

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
        return " ".join(filter(None, ["; ".join(self.problems) + ".", self._hint]))

    def _values(self, name: str, problems: list[str]) -> tuple[bytes, ...]:
        file = self._path / name
        try:
            with file.open("rb") as stream:
                content = stream.read(MOST_BYTES + 1)
        except OSError as ex:
            problems.append(f"{file} can't be read ({ex.strerror})")
            return ()
        values = values_in(content)
        if not values:
            problems.append(f"{file} holds no value")
        elif len(values) > MOST_VALUES or len(content) > MOST_BYTES:
            problems.append(f"{file} holds more than {MOST_VALUES} values or is above {MOST_BYTES} bytes")
            return ()
        return values

    def _log_key(self) -> bytes | None:
        try:
            values = values_in((self._path / LOG_KEY).read_bytes())
        except OSError:
            return self.current.log_key
        return values[0] if values else self.current.log_key


def values_in(content: bytes) -> tuple[bytes, ...]:
    """Read the values of a credentials file, one a line, without BOM, CRLF, blank lines and blanks at the edges."""
    lines = content.removeprefix(b"\xef\xbb\xbf").splitlines()
    return tuple(line.strip() for line in lines if line.strip())
