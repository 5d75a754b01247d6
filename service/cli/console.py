"""Tables and sentences for a terminal, or for whatever reads the output."""

import textwrap
from collections.abc import Iterable, Sequence
from typing import Final

from rich.console import Console
from rich.table import Table

PIPED_COLUMNS: Final = 1000  # columns of what is no terminal
MIN_TEXT_COLUMNS: Final = 20  # columns left for the text of a line


def console() -> Console:
    """Make what prints, taking nothing in a text for markup."""
    made = Console(emoji=False, markup=False)
    if not made.is_terminal:
        made.width = PIPED_COLUMNS
    return made


def ended(sentence: str) -> str:
    """Put a full stop behind a sentence that has no end."""
    return sentence if sentence.endswith((".", "?", "!")) else f"{sentence}."


def wrapped(line: str, screen: Console, indent: int) -> str:
    """Break a line at blanks where it is too long for a terminal, and go on *indent* columns from the left."""
    if not screen.is_terminal:
        return line
    return textwrap.fill(
        line,
        max(screen.width, indent + MIN_TEXT_COLUMNS),
        subsequent_indent=" " * indent,
        drop_whitespace=True,
        break_long_words=False,
        break_on_hyphens=False,
    )


def print_table(columns: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    """Print a table in which nothing is cut or broken; a terminal that is too narrow goes on in the next line."""
    table = Table(*columns, box=None, header_style="bold")
    for row in rows:
        table.add_row(*row)
    for column in table.columns:
        column.no_wrap = True
    screen = console()
    screen.width = max(screen.width, screen.measure(table).maximum)
    screen.print(table)
