"""The path to the public URL, step by step: the URL's form, its host name, and whether the port accepts connections."""

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


class Endpoint(NamedTuple):
    """The public URL, its host and port, and whether the doctor runs in a cluster."""

    parts: SplitResult
    host: str
    port: int
    in_cluster: bool

    @property
    def is_secure(self) -> bool:
        """Return whether the URL is https."""
        return self.parts.scheme == "https"


def endpoint(url: str, *, in_cluster: bool) -> Endpoint:
    """Parse *url*, which was validated before."""
    parts = urlsplit(url)
    return Endpoint(parts, parts.hostname or "", parts.port or _PORTS[parts.scheme], in_cluster)


def form(target: Endpoint) -> Finding:
    """Check whether Meta would call such a URL."""
    if problem := urls.why_not_called(target.parts.geturl()):
        return Finding.wrong(
            CheckId.URL, problem, "Use another URL. For https, a proxy in front of the service terminates TLS."
        )
    if is_literal(target.host) and not ipaddress.ip_address(target.host).is_global:
        return Finding.wrong(
            CheckId.URL,
            f"{target.host} can't be reached from the internet: it is not a public address.",
            "Use a public DNS name.",
        )
    return Finding.ok(CheckId.URL, target.parts.geturl())


def name(target: Endpoint) -> tuple[Finding, list[tuple[Any, ...]]]:
    """Resolve the host name; return the addresses too."""
    try:
        found = socket.getaddrinfo(target.host, target.port, 0, socket.SOCK_STREAM)
    except (OSError, ValueError) as ex:
        why = ex.strerror if isinstance(ex, OSError) else "it is not a valid name"
        remedy = "Create its DNS record, and wait until public name servers have it; check the spelling."
        return Finding.wrong(CheckId.NAME, f"{target.host} could not be resolved: {why}.", remedy), []
    addresses = list(dict.fromkeys(each[4][0] for each in found))
    listed = ", ".join(map(str, addresses))
    if all(ipaddress.ip_address(str(each).partition("%")[0]).is_global for each in addresses):
        return Finding.ok(CheckId.NAME, f"{target.host} resolves to {listed}."), found
    return (
        Finding.unknown(
            CheckId.NAME,
            f"{target.host} resolves to {listed} here; Meta can reach public addresses only.",
            f"Ask a public name server, which may answer differently: dig +short {target.host} @1.1.1.1",
        ),
        found,
    )


def connection(target: Endpoint, addresses: list[tuple[Any, ...]]) -> tuple[Finding, list[Address]]:
    """Connect to every address, since Meta may use any of them; return those that accepted, too."""
    failed: dict[str, str] = {}
    unreachable: list[str] = []
    accepted: list[Address] = []
    for family, kind, protocol, _, address in addresses:
        try:
            with socket.socket(family, kind, protocol) as client:
                client.settimeout(CONNECT_LIMIT_SECONDS)
                client.connect(address)
            accepted.append(address)
        except OSError as ex:
            if ex.errno in _NO_ROUTE:
                unreachable.append(address[0])
            else:
                failed[address[0]] = "timeout" if isinstance(ex, TimeoutError) else ex.strerror or "?"
    listed = ", ".join(f"{address}: {why}" for address, why in failed.items())
    if failed and target.in_cluster:
        finding = Finding.unknown(
            CheckId.CONNECTION,
            f"Port {target.port} can't be reached from this pod ({listed}); a network policy may forbid it.",
            "Run the doctor from outside the cluster: "
            f"whatsapp-webhook doctor --url {shlex.quote(target.parts.geturl())}",
        )
    elif failed:
        at = "" if len(failed) == len(addresses) else f" at {len(failed)} of {len(addresses)} addresses"
        finding = Finding.wrong(
            CheckId.CONNECTION,
            f"Port {target.port} does not accept connections{at} ({listed}).",
            f"Check that the load balancer or proxy is running, and that port {target.port} is open to the whole "
            "internet.",
        )
    elif unreachable:
        finding = Finding.unknown(
            CheckId.CONNECTION,
            f"There is no route from here to {', '.join(unreachable)}.",
            "Try from a machine that has IPv6, or remove the address from DNS.",
        )
    else:
        finding = Finding.ok(CheckId.CONNECTION, f"Port {target.port} accepts connections.")
    return finding, accepted


def is_literal(host: str) -> bool:
    """Return whether *host* is an address and not a name."""
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True
