"""Tables for a terminal, or for whatever reads the output."""

from collections.abc import Iterable, Sequence
from typing import Final

from rich.console import Console
from rich.table import Table

PIPED: Final = 1000  # columns of what is no terminal


def console() -> Console:
    """Make what prints, taking nothing in a text for markup."""
    made = Console(emoji=False, markup=False)
    if not made.is_terminal:
        made.width = PIPED
    return made


def printable(text: str) -> str:
    """Leave out of a text of somebody else's what would steer a terminal."""
    return "".join(character if character.isprintable() else "?" for character in text)


def print_table(columns: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    """Print a table in which nothing is cut or broken."""
    table = Table(*columns, box=None, header_style="bold")
    for row in rows:
        table.add_row(*row)
    for column in table.columns:
        column.no_wrap = True
    console().print(table)
