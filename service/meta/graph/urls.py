"""Callback URLs as Meta takes them: whether it would call one, and whether two are the same."""

import unicodedata
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
    """Say whether two URLs are the same, however they are written: the host's case, the port, no path but the root."""
    if one == other:
        return True
    if not (one.isprintable() and other.isprintable()):
        return False
    try:
        return _plain(urlsplit(one)) == _plain(urlsplit(other))
    except ValueError:
        return False


def _plain(parts: SplitResult) -> tuple[object, ...]:
    # Scheme and host are in small letters already.
    port = _PORTS.get(parts.scheme) if parts.port is None else parts.port
    user = parts.netloc.rpartition("@")[0]
    return parts.scheme, user, _ascii(parts.hostname or ""), port, parts.path or "/", parts.query, parts.fragment


def _ascii(host: str) -> tuple[bytes, ...]:
    """Write a host's labels as DNS does, mapping none to another one (IDNA 2008: to whom \u00df is not ss)."""
    labels = unicodedata.normalize("NFC", host.removesuffix(".")).split(".")
    return tuple(each.encode() if each.isascii() else b"xn--" + each.encode("punycode") for each in labels)
