"""Command lines that the documentation shows."""

import shlex
from collections.abc import Iterable

import click

from service import cli


def require_valid(lines: Iterable[str]) -> None:
    """Check that each line, which follows the program's name, is a command with options that exist."""
    for line in lines:
        command: click.Command = cli.commands
        arguments = shlex.split(line)
        context = click.Context(command)
        while isinstance(command, click.Group):
            command = command.commands[arguments.pop(0)]
            context = click.Context(command, parent=context)
        _, left, _ = command.make_parser(context).parse_args(arguments)
        assert not left, line
