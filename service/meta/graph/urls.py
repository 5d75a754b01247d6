"""Callback URLs: whether Meta would call one, and whether two are the same."""

import unicodedata
from urllib.parse import SplitResult, urlsplit

_PORTS = {"https": 443, "http": 80}


def why_not_called(url: str) -> str | None:
    """Return why Meta would never call *url*, a URL with a host; None if it would."""
    parts = urlsplit(url)
    if parts.scheme != "https":
        return "Meta calls https only, with a certificate of a public authority."
    if "+" in parts.path:
        return "Meta sends a + in the path as a space: use another character."
    return None


def same(one: str, other: str) -> bool:
    """Return whether two URLs are the same; a host's case, the default port and an empty path do not matter."""
    if one == other:
        return True
    if not (one.isprintable() and other.isprintable()):
        return False
    try:
        return _normalized(urlsplit(one)) == _normalized(urlsplit(other))
    except ValueError:
        return False


def _normalized(parts: SplitResult) -> tuple[object, ...]:
    # Both `scheme` and `hostname` are in lower case.
    port = _PORTS.get(parts.scheme) if parts.port is None else parts.port
    user = parts.netloc.rpartition("@")[0]
    return parts.scheme, user, _ascii(parts.hostname or ""), port, parts.path or "/", parts.query, parts.fragment


def _ascii(host: str) -> tuple[bytes, ...]:
    """Encode a host's labels as DNS does, without mapping characters (IDNA 2008: \u00df is not ss)."""
    labels = unicodedata.normalize("NFC", host.removesuffix(".")).split(".")
    return tuple(each.encode() if each.isascii() else b"xn--" + each.encode("punycode") for each in labels)
