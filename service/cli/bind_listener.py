"""Binding a listener, in words that say which setting names a place that can't be had."""

import errno
import os
import socket
from typing import Final

import click

from service.config import Address
from service.telemetry import logs

_NO_IPV6: Final = (errno.EAFNOSUPPORT, errno.EADDRNOTAVAIL)
EVERY_IPV6: Final = "::"
EVERY_IPV4: Final = "0.0.0.0"  # noqa: S104  where `::` can't be bound


def listen(variable: str, where: Address, *, backlog: int = 128) -> socket.socket:
    """Listen on *where*, which *variable* names; raises ClickException if that can't be bound.

    `[::]` takes IPv4 as well; on a machine without IPv6 it is 0.0.0.0.
    """
    try:
        return _bound(where, backlog)
    except OSError as ex:
        if where.host == EVERY_IPV6 and ex.errno in _NO_IPV6:
            logs.get("server").warning("no IPv6 here", detail=f"{variable} {where} is bound as {EVERY_IPV4} instead")
            return listen(variable, where._replace(host=EVERY_IPV4), backlog=backlog)
        why = os.strerror(ex.errno) if ex.errno and ex.errno > 0 else "the host is not known"
        raise click.ClickException(f"{variable} {where} can't be bound: {why}.") from ex


def _bound(where: Address, backlog: int) -> socket.socket:
    is_ipv6 = ":" in where.host
    return socket.create_server(
        where,
        family=socket.AF_INET6 if is_ipv6 else socket.AF_INET,
        backlog=backlog,
        dualstack_ipv6=where.host == EVERY_IPV6 and socket.has_dualstack_ipv6(),
    )
