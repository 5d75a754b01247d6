"""Problems of an inbox's URL that do not depend on the engine, but on whether it has a server."""

import re
from typing import Final
from urllib.parse import parse_qsl, urlsplit

from service.config import InboxUrl

_HOST: Final = re.compile(r"(\[[0-9A-Fa-f:.]+\]|[^:@\[\]\s]+)(:[0-9]{1,5})?")
_ENCODE: Final = (
    "has an invalid host or port: a port is a number, and special characters in a password must be percent-encoded "
    "(%40 for @)"
)


def problems_with_server(url: InboxUrl) -> list[str]:
    """Return the problems of the host, which an unencoded password may cause, without its text; see `Engine`."""
    parts = urlsplit(url.text)
    if not parts.netloc and "host=" not in parts.query:
        return [f"requires a host: {parts.scheme}://host/name"]
    hosts = parts.netloc.rpartition("@")[2]
    if "@" in parts.path or parts.fragment or (hosts and not all(map(_HOST.fullmatch, hosts.split(",")))):
        return [_ENCODE]
    return []


def problems_without_server(url: InboxUrl) -> list[str]:
    """Return the problems of the URL of an engine that has no server; see `Engine`."""
    parts = urlsplit(url.text)
    unknown = sorted(dict(parse_qsl(parts.query, keep_blank_values=True)).keys() - {"durability"})
    if unknown:
        return [f"has an unknown parameter ({', '.join(unknown)}); the only known one is durability=weak"]
    if parts.fragment:
        return ["has a #: write it as %23 in a path"]
    if parts.netloc:
        return [f"requires three slashes ({parts.scheme}:///path): the engine has no host"]
    return []
