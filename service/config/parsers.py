"""Parsers of the variables' texts; each raises ValueError with the expected form."""

import re
from collections.abc import Callable, Collection
from pathlib import Path
from typing import NamedTuple
from urllib.parse import parse_qsl, unquote, urlsplit

SYNONYMS = {"postgres": "postgresql"}  # libpq accepts both
LAST_PORT = 65535
MAX_DURATION_SECONDS = 3650 * 86400.0
MAX_DIGITS = 15
_SECONDS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}


class Address(NamedTuple):
    """A host and port to bind to."""

    host: str
    port: int

    def __str__(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{host}:{self.port}"


class InboxUrl(NamedTuple):
    """The engine that stores the events, and its location.

    *text* is the URL as configured, secrets included; *file* is the file it was read from, None if it was not read from
    a file. *path* is set for a URL without a host: percent-decoded and with symbolic links resolved, so that two names
    of one file are one inbox.
    """

    engine: str
    text: str
    weak: bool
    file: Path | None = None
    path: Path = Path()

    def __str__(self) -> str:
        """Return the URL without users, passwords and parameters."""
        url = urlsplit(self.text)
        hosts = url.netloc.rpartition("@")[2]
        return f"{self.engine}://{hosts}{url.path}"


def address(text: str) -> Address:
    """Parse `host:port`; an IPv6 host is in brackets."""
    host, colon, port = text.rpartition(":")
    host = host.strip("[]")
    if not colon or not host or not _is_number(port) or len(port) > MAX_DIGITS or not 0 < int(port) <= LAST_PORT:
        raise ValueError("must be host:port, such as 0.0.0.0:8080")
    return Address(host, int(port))


def duration(text: str) -> float:
    """Parse a duration such as `500ms`, `10s`, `15m`, `36h` or `8d`; return seconds."""
    match = re.fullmatch(r"([0-9]+(?:\.[0-9]+)?)(ms|s|m|h|d)", text)
    if not match or not 0 < (seconds := float(match[1]) * _SECONDS[match[2]]) <= MAX_DURATION_SECONDS:
        raise ValueError("must be a duration above zero and up to 3650d with a unit (ms, s, m, h or d), such as 10s")
    return seconds


def count(maximum: int) -> Callable[[str], int]:
    """Return a parser for a whole number from 1 to *maximum*."""

    def parse(text: str) -> int:
        if not _is_number(text) or len(text) > MAX_DIGITS or not 0 < int(text) <= maximum:
            raise ValueError(f"must be a whole number from 1 to {maximum}")
        return int(text)

    return parse


def url_path(text: str) -> str:
    """Parse the path of the webhook."""
    if not re.fullmatch(r"/([A-Za-z0-9._~-]+/)*[A-Za-z0-9._~-]*", text):
        raise ValueError("must be a path that starts with one / and contains only letters, digits and . _ ~ - /")
    return text


def health_path(text: str) -> str:
    """Parse a path of the public listener; empty for none."""
    return url_path(text) if text else ""


def inbox_url(text: str) -> InboxUrl:
    """Parse the URL of an inbox: `sqlite:///path/inbox.db`, `postgresql://host/database`, and so on.

    `storage.engines` checks whether the engine exists, and the engine's own parameters.
    """
    try:
        url = urlsplit(text)
    except ValueError as ex:
        raise ValueError("must be a URL such as sqlite:///var/lib/inbox.db") from ex
    if not url.scheme:
        raise ValueError("must be a URL such as sqlite:///var/lib/inbox.db")
    durability = dict(parse_qsl(url.query, keep_blank_values=True)).get("durability", "")
    if durability not in ("", "weak"):
        raise ValueError("has an unknown durability: only durability=weak is supported")
    path = _real_path(url.path) if url.path and not url.netloc else Path()
    return InboxUrl(SYNONYMS.get(url.scheme, url.scheme), text, bool(durability), path=path)


def _real_path(written: str) -> Path:
    decoded = unquote(written)
    if "\0" in decoded:
        raise ValueError("has a NUL character in its path")
    path = Path(decoded)
    if decoded != written and Path(written).exists() and not path.exists():
        raise ValueError(
            f"is percent-decoded, so it names {decoded}, which does not exist, while {written} does: "
            "rename the file, or write each % as %25"
        )
    try:
        return path.resolve()
    except (OSError, RuntimeError) as ex:
        raise ValueError("has a symbolic link in its path that points to itself") from ex


def names(text: str) -> frozenset[str]:
    """Parse comma-separated names; empty means all."""
    return frozenset(name.strip() for name in text.split(",") if name.strip())


def public_url(text: str) -> str:
    """Parse the URL that Meta calls; empty for none. It does not check whether Meta would call it."""
    if text and (not _is_url(text, ("https", "http")) or any(each in text for each in "@# ")):
        raise ValueError(
            "must be a URL such as https://wa.example.com/webhooks, without user, password, fragment or space"
        )
    return text


def graph_url(text: str) -> str:
    """Parse the base URL of the Graph API: https only, since secrets are sent there."""
    if not _is_url(text, ("https",)) or urlsplit(text).path not in ("", "/"):
        raise ValueError("must be https://host, such as https://graph.facebook.com")
    return text.rstrip("/")


def graph_version(text: str) -> str:
    """Parse a version of the Graph API."""
    if not re.fullmatch(r"v[0-9]{1,3}\.[0-9]{1,2}", text):
        raise ValueError("must be a version such as v26.0")
    return text


def one_id(text: str) -> str:
    """Parse an id of Meta's; empty for none."""
    if text and not re.fullmatch(r"[0-9]{1,32}", text):
        raise ValueError("must be an id of digits, as shown in Meta's dashboard")
    return text


def ids(text: str) -> tuple[str, ...]:
    """Parse comma-separated ids of Meta's; return each once, in order."""
    return tuple(dict.fromkeys(one_id(each.strip()) for each in text.split(",") if each.strip()))


def _is_url(text: str, schemes: Collection[str]) -> bool:
    try:
        url = urlsplit(text)
        return url.scheme in schemes and bool(url.hostname) and url.port != 0 and text.isprintable()
    except ValueError:
        return False


def one_of(*choices: str) -> Callable[[str], str]:
    """Return a parser for a closed set of words."""

    def parse(text: str) -> str:
        if text not in choices:
            raise ValueError(f"must be one of {', '.join(filter(None, choices))}")
        return text

    return parse


def _is_number(text: str) -> bool:
    return text.isascii() and text.isdigit()
