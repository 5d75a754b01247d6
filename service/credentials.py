"""The accepted credentials: verify tokens and app secrets, read from mounted files.

A directory with the files `verify-token` and `app-secret`, one to four values each, one per line, the current one
first; `log-key` is optional, and so is `access-token`, for the commands that ask Meta. Kubernetes mounts a Secret
like this: each name is a link through `..data`, which the kubelet swaps by a rename. The files are read again and
compared by content, so no clock of a file system and no watcher can hide a change.

Every secret file is read by `read_values`. A line that cannot be a value makes the whole file unusable: HMAC pads a
short key with zeros, so a NUL byte or a brace accepted as an app secret would let anybody sign.
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
UTF_16_MARKS: Final = (b"\xff\xfe", b"\xfe\xff")  # UTF-32's begins with, or holds, one of them
_APP_SECRET: Final = re.compile(rb"[ -~]{%d,}" % MIN_APP_SECRET_CHARACTERS)
# What documentation, this project's own too, writes in the place of a value.
_PLACEHOLDER: Final = re.compile(
    rb"<.*>|\$\{?\w+\}?|\{\{.*\}\}|x{4,}|\*+|\.{3}"
    rb"|(insert[-_ ]|put[-_ ])?your[-_ ]?(own[-_ ])?(verify|app|webhook|facebook|meta)?[-_ ]?(token|secret)([-_ ]here)?"
    rb"|(verify|app)[-_ ]?(token|secret)([-_ ]here)?"
    rb"|change[-_ ]?(me|it|this)|choose[-_ ]?one|from[-_ ]meta|what-meta-shows.*|replace[-_ ]?me|todo|none|null",
    re.IGNORECASE,
)


class UnusableFile(Exception):
    """A secret file that cannot be read, or that holds something other than values; says why, never what it holds.

    *is_empty* means that there is nothing in it to be wrong: it is missing, unreadable, or holds no value.
    """

    def __init__(self, why: str, *, is_empty: bool = False) -> None:
        super().__init__(why)
        self.is_empty = is_empty


@dataclass(frozen=True, slots=True)
class Credentials:
    """The values that are accepted now, the current one first; empty means none."""

    verify_tokens: tuple[bytes, ...] = ()
    app_secrets: tuple[bytes, ...] = ()
    log_key: bytes | None = None


class CredentialsDirectory(Reloading[Credentials]):
    """The credentials of a directory; of a file that can't be read or holds no value, the last good values stay."""

    def __init__(self, path: Path, *, hint: str = "") -> None:
        """*hint* says where to put what is missing."""
        super().__init__(self._read_files, Credentials())
        self._path = path
        self.hint = hint
        self.others = ""  # a sentence about files whose name is nearly right

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
        """Say whether values are in force that the files no longer give."""
        return bool(self.problems) and self.missing is None

    @property
    def missing(self) -> str | None:
        """Say what is still awaited, with the hint where to put it; None once both kinds are in force."""
        if self.current.verify_tokens and self.current.app_secrets:
            return None
        return " ".join(filter(None, ["; ".join(self.problems) + ".", self.others, self.hint]))

    def _other_names(self) -> str:
        """Return a sentence that names the other files, so that a name that is nearly right is seen."""
        try:
            names = {file.name for file in self._path.iterdir() if not file.name.startswith(".")}
        except OSError:
            return ""
        others = sorted(names - {VERIFY_TOKEN, APP_SECRET, LOG_KEY, ACCESS_TOKEN})
        return f"There is {', '.join(others[:MAX_SHOWN_NAMES])}, which is none of them." if others else ""

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
    """Return a sentence for each verify token that a stranger may guess: it is accepted, and should be replaced."""
    found = []
    for line, token in enumerate(tokens, start=1):
        if is_placeholder(token):
            found.append(f"{VERIFY_TOKEN}, line {line}, is a placeholder from an example.")
        elif len(token) < MIN_VERIFY_TOKEN_CHARACTERS:
            found.append(f"{VERIFY_TOKEN}, line {line}, is shorter than {MIN_VERIFY_TOKEN_CHARACTERS} characters.")
    return tuple(found)


def is_placeholder(value: bytes) -> bool:
    """Return whether *value* is what examples write in a value's place."""
    return bool(_PLACEHOLDER.fullmatch(value))


def is_app_secret(value: bytes) -> bool:
    """Return whether *value* can be an app secret: at least 16 printable ASCII characters; Meta's are 32 hex digits.

    A line of a key in PEM, or a comment, is none: everybody may know it.
    """
    return bool(_APP_SECRET.fullmatch(value)) and not value.startswith((b"-----", b"#"))


def read_app_secrets(directory: Path) -> tuple[bytes, ...]:
    """Read the app secrets of a credentials directory, the current one first; raises UnusableFile."""
    file = directory / APP_SECRET
    values = read_values(file)
    for line, value in enumerate(values, start=1):
        if not is_app_secret(value):
            raise UnusableFile(
                f"{file}, line {line}, is no app secret: it needs at least {MIN_APP_SECRET_CHARACTERS} printable ASCII "
                "characters, and Meta's has 32 hex digits (App settings > Basic > App secret)"
            )
    return values


def read_values(file: Path) -> tuple[bytes, ...]:
    """Read the one to four values of a secret file, the current one first; raises UnusableFile."""
    try:
        content = read_content(file)
    except (OSError, ValueError) as ex:
        why = ex.strerror if isinstance(ex, OSError) else "it is not a file name"
        raise UnusableFile(f"{file} can't be read ({why})", is_empty=True) from ex
    try:
        values = parse_values(content)
    except ValueError as ex:
        raise UnusableFile(f"{file} {ex}") from ex
    if not values:
        raise UnusableFile(f"{file} holds no value", is_empty=True)
    if len(values) > MAX_VALUES:
        raise UnusableFile(f"{file} holds more than {MAX_VALUES} values")
    return values


def read_content(file: Path) -> bytes:
    """Read a file that anybody may have put there: a pipe must not block, nor a huge one fill the memory."""
    descriptor = os.open(file, os.O_RDONLY | os.O_NONBLOCK)
    try:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            raise OSError(errno.EINVAL, "not a regular file")
        with open(descriptor, "rb", closefd=False) as stream:
            content = stream.read(MAX_FILE_BYTES + 1)
    finally:
        os.close(descriptor)
    if len(content) > MAX_FILE_BYTES:
        raise OSError(errno.EFBIG, f"above {MAX_FILE_BYTES} bytes")
    return content


def parse_values(content: bytes) -> tuple[bytes, ...]:
    """Return the values in the content of a secret file: one per line, each once, as UTF-8.

    A byte order mark of UTF-8, CRLF, empty lines, and blanks around a value are dropped. Raises ValueError, with what
    to do, if a line cannot be a value.
    """
    if content.startswith(UTF_16_MARKS) or b"\0" in content:
        raise ValueError(
            "is not UTF-8 text but UTF-16, UTF-32 or binary: write it again, "
            "in PowerShell with `Set-Content -NoNewline -Encoding ascii`"
        )
    try:
        text = content.decode().removeprefix(BYTE_ORDER_MARK)
    except UnicodeDecodeError as ex:
        raise ValueError("is not UTF-8 text: write it again as UTF-8, one value per line") from ex
    if text.lstrip().startswith(("{", "[")):  # as secrets drivers write it, whole or cut
        raise ValueError("holds JSON: write the values alone, one per line")
    values = []
    for line, written in enumerate(re.split("\r\n|\n|\r", text), start=1):
        value = written.strip(" \t")
        if any(unicodedata.category(each) == "Cc" or each == BYTE_ORDER_MARK for each in value):
            raise ValueError(f"has a control character in line {line}: write the values alone, one per line")
        if value:
            values.append(value.encode())
    return tuple(dict.fromkeys(values))
