"""Addresses that only a destination with `internal: true` may reach: the machine's, the link's, a cloud's metadata.

The chart's network policy for the relay leaves the same networks out.
"""

import ipaddress
from collections.abc import Iterator
from typing import Final, TypeAlias

Address: TypeAlias = ipaddress.IPv4Address | ipaddress.IPv6Address

FORBIDDEN: Final = tuple(
    map(
        ipaddress.ip_network,
        (
            "0.0.0.0/8",  # this machine
            "127.0.0.0/8",
            "169.254.0.0/16",  # this link, and the metadata of most clouds
            "100.100.100.200/32",  # metadata of Alibaba
            "168.63.129.16/32",  # of Azure
            "192.0.0.192/32",  # of Oracle
            "224.0.0.0/4",  # multicast
            "255.255.255.255/32",
            "::/128",
            "::1/128",
            "fe80::/10",
            "fd00:ec2::23/128",  # EKS's pod identity
            "fd00:ec2::254/128",  # metadata of AWS
            "fd20:ce::254/128",  # of Google
            "fd00:42::42/128",  # of Scaleway
            "64:ff9b:1::/48",  # NAT64 of this network (RFC 8215): where it leads, only its owner knows
            "ff00::/8",
        ),
    )
)
# IPv4 is in the last 32 bits: compatible (RFC 4291), translated (RFC 2765), NAT64 (RFC 6052).
_EMBEDDING: Final = tuple(map(ipaddress.ip_network, ("::/96", "::ffff:0:0:0/96", "64:ff9b::/96")))


def is_forbidden(address: str) -> bool:
    """Return whether an address, or an IPv4 address that it stands for, is in a forbidden network."""
    found = ipaddress.ip_address(address)
    return any(each in network for each in _meanings(found) for network in FORBIDDEN)


def _meanings(found: Address) -> Iterator[Address]:
    yield found
    if isinstance(found, ipaddress.IPv6Address):
        yield from filter(None, (found.ipv4_mapped, found.sixtofour, *(found.teredo or ())))
        if any(found in network for network in _EMBEDDING):
            yield ipaddress.IPv4Address(int(found) & 0xFFFFFFFF)
