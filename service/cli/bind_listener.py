"""Binding a listener, with an error that names the setting."""

import errno
import os
import socket
from typing import Final

import click

from service.config import Address
from service.telemetry import logs

_NO_IPV6: Final = (errno.EAFNOSUPPORT, errno.EADDRNOTAVAIL)
EVERY_IPV6: Final = "::"
EVERY_IPV4: Final = "0.0.0.0"  # noqa: S104  if `::` cannot be bound


def listen(variable: str, where: Address, *, backlog: int = 128) -> socket.socket:
    """Listen on *where*, the value of *variable*; raises ClickException if it cannot be bound.

    `[::]` accepts IPv4 too; on a machine without IPv6, 0.0.0.0 is bound instead.
    """
    try:
        return _bound(where, backlog)
    except OSError as ex:
        if where.host == EVERY_IPV6 and ex.errno in _NO_IPV6:
            logs.get("server").warning("no IPv6 here", detail=f"{variable} {where} is bound as {EVERY_IPV4} instead")
            return listen(variable, where._replace(host=EVERY_IPV4), backlog=backlog)
        reason = os.strerror(ex.errno) if ex.errno and ex.errno > 0 else "the host name cannot be resolved"
        raise click.ClickException(f"{variable} {where} cannot be bound: {reason}.") from ex


def _bound(where: Address, backlog: int) -> socket.socket:
    is_ipv6 = ":" in where.host
    return socket.create_server(
        where,
        family=socket.AF_INET6 if is_ipv6 else socket.AF_INET,
        backlog=backlog,
        dualstack_ipv6=where.host == EVERY_IPV6 and socket.has_dualstack_ipv6(),
    )
