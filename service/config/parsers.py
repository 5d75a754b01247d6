"""How the text of a variable is read; a ValueError says what it wants."""

import re
from collections.abc import Callable, Collection
from pathlib import Path
from typing import NamedTuple
from urllib.parse import parse_qsl, unquote, urlsplit

SYNONYMS = {"postgres": "postgresql"}  # as libpq reads it
LAST_PORT = 65535
MAX_DURATION_SECONDS = 3650 * 86400.0  # seconds
MAX_DIGITS = 15
_SECONDS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}


class Address(NamedTuple):
    """Where a listener binds."""

    host: str
    port: int

    def __str__(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{host}:{self.port}"


class InboxUrl(NamedTuple):
    """Which engine stores the events, and where.

    *text* is the URL as it was given, with what is secret in it; *file* is where it was read, None where it was not.
    *path* is that of a URL without a host: percent-decoded, and without symbolic links, so that two names of one file
    are one inbox.
    """

    engine: str
    text: str
    weak: bool
    file: Path | None = None
    path: Path = Path()

    def __str__(self) -> str:
        """Give it without users, passwords and parameters."""
        url = urlsplit(self.text)
        hosts = url.netloc.rpartition("@")[2]
        return f"{self.engine}://{hosts}{url.path}"


def address(text: str) -> Address:
    """Read `host:port`, an IPv6 host in brackets."""
    host, colon, port = text.rpartition(":")
    host = host.strip("[]")
    if not colon or not host or not _is_number(port) or len(port) > MAX_DIGITS or not 0 < int(port) <= LAST_PORT:
        raise ValueError("wants host:port, such as 0.0.0.0:8080")
    return Address(host, int(port))


def duration(text: str) -> float:
    """Read a duration such as `500ms`, `10s`, `15m`, `36h` or `8d` into seconds."""
    found = re.fullmatch(r"([0-9]+(?:\.[0-9]+)?)(ms|s|m|h|d)", text)
    if not found or not 0 < (seconds := float(found[1]) * _SECONDS[found[2]]) <= MAX_DURATION_SECONDS:
        raise ValueError("wants a duration above zero and up to 3650d with its unit: ms, s, m, h or d, such as 10s")
    return seconds


def count(most: int) -> Callable[[str], int]:
    """Make a parser for a whole number above zero, *most* at the most."""

    def parse(text: str) -> int:
        if not _is_number(text) or len(text) > MAX_DIGITS or not 0 < int(text) <= most:
            raise ValueError(f"wants a whole number from 1 to {most}")
        return int(text)

    return parse


def url_path(text: str) -> str:
    """Read the path of the webhook."""
    if not re.fullmatch(r"/([A-Za-z0-9._~-]+/)*[A-Za-z0-9._~-]*", text):
        raise ValueError("wants a path that begins with one / and holds letters, digits and . _ ~ - / only")
    return text


def health_path(text: str) -> str:
    """Read a path of the public listener, or nothing."""
    return url_path(text) if text else ""


def inbox_url(text: str) -> InboxUrl:
    """Read where the events are kept: `sqlite:///path/inbox.db`, `postgresql://host/database`, and so on.

    Whether there is such an engine, and what is its own in the URL, is for `storage.engines` to check.
    """
    try:
        url = urlsplit(text)
    except ValueError as ex:
        raise ValueError("wants a URL such as sqlite:///var/lib/inbox.db") from ex
    if not url.scheme:
        raise ValueError("wants a URL such as sqlite:///var/lib/inbox.db")
    durability = dict(parse_qsl(url.query, keep_blank_values=True)).get("durability", "")
    if durability not in ("", "weak"):
        raise ValueError("has a durability that it does not know; it knows durability=weak, or nothing")
    path = _real_path(url.path) if url.path and not url.netloc else Path()
    return InboxUrl(SYNONYMS.get(url.scheme, url.scheme), text, bool(durability), path=path)


def _real_path(written: str) -> Path:
    decoded = unquote(written)
    if "\0" in decoded:
        raise ValueError("has a NUL in its path")
    path = Path(decoded)
    if decoded != written and Path(written).exists() and not path.exists():
        raise ValueError(
            f"is percent-decoded, so it names {decoded}, which does not exist, while {written} does: "
            "rename the file, or write each % as %25"
        )
    try:
        return path.resolve()
    except (OSError, RuntimeError) as ex:
        raise ValueError("has a symbolic link in its path that leads to itself") from ex


def names(text: str) -> frozenset[str]:
    """Read names with commas between them; empty is all."""
    return frozenset(name.strip() for name in text.split(",") if name.strip())


def public_url(text: str) -> str:
    """Read the URL that Meta calls, empty for none; whether Meta would call it is asked elsewhere."""
    if text and (not _is_url(text, ("https", "http")) or any(each in text for each in "@# ")):
        raise ValueError(
            "wants a URL such as https://wa.example.com/webhooks, without user, password, fragment or blank"
        )
    return text


def graph_url(text: str) -> str:
    """Read where the Graph API is: with TLS, since secrets go there."""
    if not _is_url(text, ("https",)) or urlsplit(text).path not in ("", "/"):
        raise ValueError("wants https://host, such as https://graph.facebook.com")
    return text.rstrip("/")


def graph_version(text: str) -> str:
    """Read a version of the Graph API."""
    if not re.fullmatch(r"v[0-9]{1,3}\.[0-9]{1,2}", text):
        raise ValueError("wants a version such as v26.0")
    return text


def one_id(text: str) -> str:
    """Read an id of Meta's, empty for none."""
    if text and not re.fullmatch(r"[0-9]{1,32}", text):
        raise ValueError("wants an id of digits, as Meta's dashboard shows it")
    return text


def ids(text: str) -> tuple[str, ...]:
    """Read ids of Meta's with commas between, each once, in order."""
    return tuple(dict.fromkeys(one_id(each.strip()) for each in text.split(",") if each.strip()))


def _is_url(text: str, schemes: Collection[str]) -> bool:
    try:
        url = urlsplit(text)
        return url.scheme in schemes and bool(url.hostname) and url.port != 0 and text.isprintable()
    except ValueError:
        return False


def one_of(*choices: str) -> Callable[[str], str]:
    """Make a parser for a closed set of words."""

    def parse(text: str) -> str:
        if text not in choices:
            raise ValueError(f"wants one of {', '.join(filter(None, choices))}")
        return text

    return parse


def _is_number(text: str) -> bool:
    return text.isascii() and text.isdigit()
