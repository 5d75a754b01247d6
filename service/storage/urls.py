"""What is wrong with the URL of an inbox, whatever the engine: with a server, or without one."""

import re
from typing import Final
from urllib.parse import parse_qsl, urlsplit

from service.config import InboxUrl

_HOST: Final = re.compile(r"(\[[0-9A-Fa-f:.]+\]|[^:@\[\]\s]+)(:[0-9]{1,5})?")
_ENCODE: Final = "wants hosts with a port that is a number, and what is odd in a password percent-encoded (%40 for @)"


def problems_with_server(url: InboxUrl) -> list[str]:
    """Return what a password may have broken up, without repeating any of it; see `Engine.problems`."""
    parts = urlsplit(url.text)
    if not parts.netloc and "host=" not in parts.query:
        return [f"wants a host: {parts.scheme}://host/name"]
    hosts = parts.netloc.rpartition("@")[2]
    if "@" in parts.path or parts.fragment or (hosts and not all(map(_HOST.fullmatch, hosts.split(",")))):
        return [_ENCODE]
    return []


def problems_without_server(url: InboxUrl) -> list[str]:
    """Return what is wrong with the URL of an engine that has no server; see `Engine.problems`."""
    parts = urlsplit(url.text)
    unknown = sorted(dict(parse_qsl(parts.query, keep_blank_values=True)).keys() - {"durability"})
    if unknown:
        return [f"has a parameter that it does not know ({', '.join(unknown)}); it knows durability=weak"]
    if parts.fragment:
        return ["has a # in it: write it as %23 in a path"]
    if parts.netloc:
        return [f"wants three slashes ({parts.scheme}:///path): the engine has no host"]
    return []
