"""Binding a listener, in words that say which setting names a place that can't be had."""

import os
import socket

import click

from service.config import Address


def listen(variable: str, where: Address) -> socket.socket:
    """Listen on *where*, which *variable* names; raises ClickException where that can't be."""
    try:
        family = socket.AF_INET6 if ":" in where.host else socket.AF_INET
        return socket.create_server(where, family=family, backlog=128)
    except OSError as ex:
        why = os.strerror(ex.errno) if ex.errno and ex.errno > 0 else "the host is not known"
        raise click.ClickException(f"{variable} {where} can't be bound: {why}.") from ex
