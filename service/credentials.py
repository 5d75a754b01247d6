"""The accepted credentials: verify tokens and app secrets, read from mounted files.

The credentials directory has the files `verify-token` and `app-secret`, each with one to four values, one per line,
the current one first. `log-key` is optional, and so is `access-token`, for commands that call the Graph API.
Kubernetes mounts a Secret with each name as a link through `..data`, which the kubelet replaces by a rename. The files
are read periodically and compared by content, so that no change is missed because of a file's time or a watcher.

Every secret file is read by `read_values`. A line that cannot be a value makes the whole file unusable: HMAC pads a
short key with zeros, so a NUL byte or a brace accepted as an app secret would let anyone sign.
"""

import errno
import os
import re
import stat
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from service.reloading import Reloading

VERIFY_TOKEN = "verify-token"  # noqa: S105  the name of a file
APP_SECRET = "app-secret"  # noqa: S105  the name of a file
LOG_KEY = "log-key"
ACCESS_TOKEN = "access-token"  # noqa: S105  the name of a file; a server does not read it
MAX_VALUES: Final = 4
MAX_SHOWN_NAMES: Final = 10
MAX_FILE_BYTES: Final = 65536
MIN_APP_SECRET_CHARACTERS: Final = 16  # Meta's has 32
MIN_VERIFY_TOKEN_CHARACTERS: Final = 8  # a shorter one is a warning
BYTE_ORDER_MARK: Final = "\ufeff"
UTF_16_MARKS: Final = (b"\xff\xfe", b"\xfe\xff")  # UTF-32's marks contain one of them
_APP_SECRET: Final = re.compile(rb"[ -~]{%d,}" % MIN_APP_SECRET_CHARACTERS)
# Placeholders that documentation, including this project's, shows in place of a value.
_PLACEHOLDER: Final = re.compile(
    rb"<.*>|\$\{?\w+\}?|\{\{.*\}\}|x{4,}|\*+|\.{3}"
    rb"|(insert[-_ ]|put[-_ ])?your[-_ ]?(own[-_ ])?(verify|app|webhook|facebook|meta)?[-_ ]?(token|secret)([-_ ]here)?"
    rb"|(verify|app)[-_ ]?(token|secret)([-_ ]here)?"
    rb"|change[-_ ]?(me|it|this)|choose[-_ ]?one|from[-_ ]meta|what-meta-shows.*|replace[-_ ]?me|todo|none|null",
    re.IGNORECASE,
)


class UnusableFile(Exception):
    """A secret file cannot be read, or its content is not values; the message never includes the content.

    *is_empty* is true if the file is missing, unreadable, or contains no value.
    """

    def __init__(self, reason: str, *, is_empty: bool = False) -> None:
        super().__init__(reason)
        self.is_empty = is_empty


@dataclass(frozen=True, slots=True)
class Credentials:
    """The accepted values, the current one first; empty means none."""

    verify_tokens: tuple[bytes, ...] = ()
    app_secrets: tuple[bytes, ...] = ()
    log_key: bytes | None = None


class CredentialsDirectory(Reloading[Credentials]):
    """The credentials of a directory; if a file is unreadable or invalid, its last good values stay accepted."""

    def __init__(self, path: Path, *, hint: str = "") -> None:
        """*hint* is a sentence about where to put missing credentials."""
        super().__init__(self._read_files, Credentials())
        self._path = path
        self.hint = hint
        self.others = ""  # a sentence about files with unknown names, such as misspelt ones

    def _read_files(self, before: Credentials) -> tuple[Credentials, Sequence[str]]:
        problems: list[str] = []
        credentials = Credentials(
            verify_tokens=self._values(VERIFY_TOKEN, problems) or before.verify_tokens,
            app_secrets=self._values(APP_SECRET, problems) or before.app_secrets,
            log_key=self._log_key(problems) or before.log_key,
        )
        self.others = self._other_names() if problems else ""
        return credentials, problems

    @property
    def stale(self) -> bool:
        """Return whether values are accepted although a file is now unreadable or invalid."""
        return bool(self.problems) and self.missing is None

    @property
    def missing(self) -> str | None:
        """Return which credentials are missing, and the hint; None if a verify token and an app secret are accepted."""
        if self.current.verify_tokens and self.current.app_secrets:
            return None
        return " ".join(filter(None, ["; ".join(self.problems) + ".", self.others, self.hint]))

    def _other_names(self) -> str:
        """Return a sentence that lists files with unknown names, so that a misspelt name is noticed."""
        try:
            names = {file.name for file in self._path.iterdir() if not file.name.startswith(".")}
        except OSError:
            return ""
        others = sorted(names - {VERIFY_TOKEN, APP_SECRET, LOG_KEY, ACCESS_TOKEN})
        return f"The directory has other files: {', '.join(others[:MAX_SHOWN_NAMES])}." if others else ""

    def _values(self, name: str, problems: list[str]) -> tuple[bytes, ...]:
        try:
            return read_app_secrets(self._path) if name == APP_SECRET else read_values(self._path / name)
        except UnusableFile as ex:
            problems.append(str(ex))
            return ()

    def _log_key(self, problems: list[str]) -> bytes | None:
        try:
            return read_values(self._path / LOG_KEY)[0]
        except UnusableFile as ex:
            if not isinstance(ex.__cause__, FileNotFoundError):
                problems.append(str(ex))
        return None


def weak_verify_tokens(tokens: Sequence[bytes]) -> tuple[str, ...]:
    """Return a sentence for each verify token that is easy to guess; it is accepted, but should be replaced."""
    weaknesses = []
    for line, token in enumerate(tokens, start=1):
        if is_placeholder(token):
            weaknesses.append(f"{VERIFY_TOKEN}, line {line}, is a placeholder from an example.")
        elif len(token) < MIN_VERIFY_TOKEN_CHARACTERS:
            weaknesses.append(f"{VERIFY_TOKEN}, line {line}, is shorter than {MIN_VERIFY_TOKEN_CHARACTERS} characters.")
    return tuple(weaknesses)


def is_placeholder(value: bytes) -> bool:
    """Return whether *value* is a placeholder that examples show in place of a value."""
    return bool(_PLACEHOLDER.fullmatch(value))


def is_app_secret(value: bytes) -> bool:
    """Return whether *value* can be an app secret: at least 16 printable ASCII characters; Meta's are 32 hex digits.

    A line of a PEM key and a comment are not app secrets: their text may be publicly known.
    """
    return bool(_APP_SECRET.fullmatch(value)) and not value.startswith((b"-----", b"#"))


def read_app_secrets(directory: Path) -> tuple[bytes, ...]:
    """Read the app secrets of a credentials directory, the current one first; raise UnusableFile if that fails."""
    file = directory / APP_SECRET
    values = read_values(file)
    for line, value in enumerate(values, start=1):
        if not is_app_secret(value):
            raise UnusableFile(
                f"{file}, line {line}, is not an app secret: it must have at least {MIN_APP_SECRET_CHARACTERS} "
                "printable ASCII characters, and Meta's has 32 hex digits (App settings > Basic > App secret)"
            )
    return values


def read_values(file: Path) -> tuple[bytes, ...]:
    """Read the one to four values of a secret file, the current one first; raise UnusableFile if that fails."""
    try:
        content = read_content(file)
    except (OSError, ValueError) as ex:
        reason = ex.strerror if isinstance(ex, OSError) else "not a file name"
        raise UnusableFile(f"{file} can't be read ({reason})", is_empty=True) from ex
    try:
        values = parse_values(content)
    except ValueError as ex:
        raise UnusableFile(f"{file} {ex}") from ex
    if not values:
        raise UnusableFile(f"{file} contains no value", is_empty=True)
    if len(values) > MAX_VALUES:
        raise UnusableFile(f"{file} contains more than {MAX_VALUES} values")
    return values


def read_content(file: Path) -> bytes:
    """Read a file of unknown origin: a pipe must not block, and a huge file must not fill the memory."""
    descriptor = os.open(file, os.O_RDONLY | os.O_NONBLOCK)
    try:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            raise OSError(errno.EINVAL, "not a regular file")
        with open(descriptor, "rb", closefd=False) as stream:
            content = stream.read(MAX_FILE_BYTES + 1)
    finally:
        os.close(descriptor)
    if len(content) > MAX_FILE_BYTES:
        raise OSError(errno.EFBIG, f"larger than {MAX_FILE_BYTES} bytes")
    return content


def parse_values(content: bytes) -> tuple[bytes, ...]:
    """Return the values in the content of a secret file: one per line, each once, as UTF-8.

    A UTF-8 byte order mark, CRLF, empty lines, and spaces and tabs around a value are removed. Raises ValueError, with
    the remedy, if a line cannot be a value.
    """
    if content.startswith(UTF_16_MARKS) or b"\0" in content:
        raise ValueError(
            "is not UTF-8 text but UTF-16, UTF-32 or binary: write it again as UTF-8, "
            "in PowerShell with `Set-Content -NoNewline -Encoding ascii`"
        )
    try:
        text = content.decode().removeprefix(BYTE_ORDER_MARK)
    except UnicodeDecodeError as ex:
        raise ValueError("is not UTF-8 text: write it again as UTF-8, one value per line") from ex
    if text.lstrip().startswith(("{", "[")):  # as some secrets drivers write it, complete or cut off
        raise ValueError("contains JSON: write only the values, one per line")
    values = []
    for line, text_line in enumerate(re.split("\r\n|\n|\r", text), start=1):
        value = text_line.strip(" \t")
        if any(unicodedata.category(each) == "Cc" or each == BYTE_ORDER_MARK for each in value):
            raise ValueError(f"has a control character in line {line}: write only the values, one per line")
        if value:
            values.append(value.encode())
    return tuple(dict.fromkeys(values))
