"""Addresses at which this machine reaches its own listener on a wildcard address."""

import ipaddress
import socket
from typing import Final

from service.config import Address

WILDCARDS: Final = ("0.0.0.0", "::")  # noqa: S104  compared, not bound
CANDIDATES: Final = ("127.0.0.1", "::1")
CONNECT_TIMEOUT_SECONDS: Final = 1.0


def reachable(listener: Address) -> Address:
    """Return the address to connect to *listener*: for a wildcard, the loopback address that accepts connections."""
    if listener.host not in WILDCARDS:
        return listener
    for host in CANDIDATES:
        try:
            socket.create_connection((host, listener.port), timeout=CONNECT_TIMEOUT_SECONDS).close()
        except OSError:
            continue
        return listener._replace(host=host)
    return listener._replace(host=CANDIDATES[0])


def unmapped(host: str) -> str:
    """Return an IPv4-mapped IPv6 address (`::ffff:a.b.c.d`) as IPv4; return any other text unchanged."""
    if not host.lower().startswith("::ffff:"):
        return host
    try:
        mapped = ipaddress.IPv6Address(host).ipv4_mapped
    except ValueError:
        return host
    return str(mapped) if mapped else host


def is_loopback(host: str) -> bool:
    """Return whether *host*, an address or a name, is a loopback address or `localhost`."""
    try:
        return ipaddress.ip_address(unmapped(host)).is_loopback
    except ValueError:
        return host.lower() == "localhost"
