"""Addresses that only a destination with `internal: true` may have: loopback, link-local, cloud metadata, multicast.

The chart's network policy for the relay excludes the same networks.
"""

import ipaddress
from collections.abc import Iterator
from typing import Final, TypeAlias

Address: TypeAlias = ipaddress.IPv4Address | ipaddress.IPv6Address

FORBIDDEN: Final = tuple(
    map(
        ipaddress.ip_network,
        (
            "0.0.0.0/8",  # this host
            "127.0.0.0/8",
            "169.254.0.0/16",  # link-local, and the metadata service of most clouds
            "100.100.100.200/32",  # metadata of Alibaba
            "168.63.129.16/32",  # of Azure
            "192.0.0.192/32",  # of Oracle
            "224.0.0.0/4",  # multicast
            "255.255.255.255/32",
            "::/128",
            "::1/128",
            "fe80::/10",
            "fd00:ec2::23/128",  # EKS Pod Identity
            "fd00:ec2::254/128",  # metadata of AWS
            "fd20:ce::254/128",  # of Google
            "fd00:42::42/128",  # of Scaleway
            "64:ff9b:1::/48",  # local-use NAT64 (RFC 8215): only its owner knows the IPv4 address behind it
            "ff00::/8",
        ),
    )
)
# The last 32 bits are an IPv4 address: compatible (RFC 4291), translated (RFC 2765), NAT64 (RFC 6052).
_EMBEDDING: Final = tuple(map(ipaddress.ip_network, ("::/96", "::ffff:0:0:0/96", "64:ff9b::/96")))


def is_forbidden(address: str) -> bool:
    """Return whether an address, or an IPv4 address embedded in it, is in a forbidden network."""
    parsed = ipaddress.ip_address(address)
    return any(each in network for each in _with_embedded(parsed) for network in FORBIDDEN)


def _with_embedded(address: Address) -> Iterator[Address]:
    yield address
    if isinstance(address, ipaddress.IPv6Address):
        yield from filter(None, (address.ipv4_mapped, address.sixtofour, *(address.teredo or ())))
        if any(address in network for network in _EMBEDDING):
            yield ipaddress.IPv4Address(int(address) & 0xFFFFFFFF)
