"""The way to the public URL, from outside in: its form, its name, who takes connections, and with which certificate."""

import errno
import ipaddress
import shlex
import socket
from typing import Any, Final, NamedTuple
from urllib.parse import SplitResult, urlsplit

from service.doctor.checks.certificate import Address
from service.doctor.finding import Finding
from service.meta.graph import urls
from service.outcomes import CheckId

CONNECT_LIMIT_SECONDS: Final = 5.0
_NO_ROUTE: Final = (errno.ENETUNREACH, errno.EHOSTUNREACH, errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT)
_PORTS: Final = {"https": 443, "http": 80}


class Place(NamedTuple):
    """A host and its port, and what Meta makes of the URL is decided by."""

    parts: SplitResult
    host: str
    port: int
    in_cluster: bool

    @property
    def is_secure(self) -> bool:
        """Say whether it speaks TLS."""
        return self.parts.scheme == "https"


def place(url: str, *, in_cluster: bool) -> Place:
    """Read *url*, which the configuration or the command line has looked at."""
    parts = urlsplit(url)
    return Place(parts, parts.hostname or "", parts.port or _PORTS[parts.scheme], in_cluster)


def form(where: Place) -> Finding:
    """Say whether Meta would call such a URL."""
    if problem := urls.why_not_called(where.parts.geturl()):
        return Finding.wrong(CheckId.URL, problem, "Enter another one; what stands before the service ends TLS.")
    if is_literal(where.host) and not ipaddress.ip_address(where.host).is_global:
        return Finding.wrong(
            CheckId.URL, f"{where.host} is an address that nobody reaches from the internet.", "Enter a public name."
        )
    return Finding.ok(CheckId.URL, where.parts.geturl())


def name(where: Place) -> tuple[Finding, list[tuple[Any, ...]]]:
    """Look the name up; gives the addresses too."""
    try:
        found = socket.getaddrinfo(where.host, where.port, 0, socket.SOCK_STREAM)
    except (OSError, ValueError) as ex:
        why = ex.strerror if isinstance(ex, OSError) else "it is no name"
        remedy = "Make its DNS record, and wait until public name servers have it; look at the spelling."
        return Finding.wrong(CheckId.NAME, f"{where.host} is not found: {why}.", remedy), []
    addresses = list(dict.fromkeys(each[4][0] for each in found))
    listed = ", ".join(map(str, addresses))
    if all(ipaddress.ip_address(str(each).partition("%")[0]).is_global for each in addresses):
        return Finding.ok(CheckId.NAME, f"{where.host} is {listed}."), found
    return (
        Finding.unknown(
            CheckId.NAME,
            f"{where.host} is {listed} here, which nobody reaches from the internet.",
            f"Ask a public name server, which may say otherwise: dig +short {where.host} @1.1.1.1",
        ),
        found,
    )


def connection(where: Place, addresses: list[tuple[Any, ...]]) -> tuple[Finding, list[Address]]:
    """Connect to each address: Meta may take any of them. Gives those too that took it."""
    silent: dict[str, str] = {}
    unreachable: list[str] = []
    taken: list[Address] = []
    for family, kind, protocol, _, address in addresses:
        try:
            with socket.socket(family, kind, protocol) as client:
                client.settimeout(CONNECT_LIMIT_SECONDS)
                client.connect(address)
            taken.append(address)
        except OSError as ex:
            if ex.errno in _NO_ROUTE:
                unreachable.append(address[0])
            else:
                silent[address[0]] = "no answer in time" if isinstance(ex, TimeoutError) else ex.strerror or "?"
    listed = ", ".join(f"{address}: {why}" for address, why in silent.items())
    if silent and where.in_cluster:
        found = Finding.unknown(
            CheckId.CONNECTION,
            f"Port {where.port} can't be reached from this pod ({listed}), which its network policy may forbid.",
            f"Run it from outside of the cluster: whatsapp-webhook doctor --url {shlex.quote(where.parts.geturl())}",
        )
    elif silent:
        of = "" if len(silent) == len(addresses) else f" of {len(addresses)} addresses"
        found = Finding.wrong(
            CheckId.CONNECTION,
            f"Nobody takes connections on port {where.port}{of} ({listed}).",
            f"Is the load balancer or proxy up, and port {where.port} open to the whole internet?",
        )
    elif unreachable:
        found = Finding.unknown(
            CheckId.CONNECTION,
            f"There is no way from here to {', '.join(unreachable)}.",
            "Try from a machine that has IPv6, or take the address out of DNS.",
        )
    else:
        found = Finding.ok(CheckId.CONNECTION, f"Port {where.port} takes connections.")
    return found, taken


def is_literal(host: str) -> bool:
    """Return whether *host* is an address and not a name."""
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True
