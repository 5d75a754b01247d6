"""Callback URLs as Meta takes them: whether it would call one, and whether two are the same."""

from contextlib import suppress
from urllib.parse import SplitResult, urlsplit

_PORTS = {"https": 443, "http": 80}


def why_not_called(url: str) -> str | None:
    """Say why Meta would not call *url*, a URL with a host, whatever answers there; None where it would."""
    parts = urlsplit(url)
    if parts.scheme != "https":
        return "Meta calls https only, with a certificate of a public authority."
    if "+" in parts.path:
        return "Meta sends a + of the path as a blank: use another character."
    return None


def same(one: str, other: str) -> bool:
    """Say whether two URLs are the same, however they are written: case, port, a path that is only the root."""
    if one == other:
        return True
    try:
        return _plain(urlsplit(one)) == _plain(urlsplit(other))
    except ValueError:
        return False


def _plain(parts: SplitResult) -> tuple[object, ...]:
    # Scheme and host are in small letters already.
    host = _ascii((parts.hostname or "").removesuffix("."))
    return parts.scheme, host, parts.port or _PORTS.get(parts.scheme), parts.path or "/", parts.query


def _ascii(host: str) -> bytes:
    with suppress(UnicodeError):
        return host.encode("idna")
    return host.encode()
