"""Tables and sentences for a terminal, a pipe or a file."""

import sys
import textwrap
from collections.abc import Iterable, Sequence
from enum import Enum
from typing import Final, NamedTuple

from rich.cells import cell_len
from rich.console import Console
from rich.text import Text

from service.cli.terminal_escapes import escaped

PIPED_COLUMNS: Final = 1000  # width of output that is not a terminal
MIN_TEXT_COLUMNS: Final = 20  # width left for the text of a line beside its indent
COLUMN_GAP: Final = "  "
ELLIPSIS: Final = "…"


def console() -> Console:
    """Return a console that reads no markup in a text."""
    made = Console(emoji=False, markup=False)
    if not sys.stdout.isatty():  # `made.is_terminal` follows FORCE_COLOR
        made.width = PIPED_COLUMNS
    return made


def ended(sentence: str) -> str:
    """Add a full stop to a sentence without one."""
    return sentence if sentence.endswith((".", "?", "!")) else f"{sentence}."


def wrapped(line: str, screen: Console, indent: int) -> str:
    """Wrap a line at spaces if it is too long for the terminal; continuation lines are indented by *indent* columns."""
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


def in_seconds(due: int, now: int) -> str:
    """Return when something is due, in words; both times are milliseconds since the epoch."""
    return "now" if due <= now else f"in {(due - now + 999) // 1000} s"


class Shorten(Enum):
    """Where a value that is too long gets its ellipsis."""

    START = "start"
    MIDDLE = "middle"
    END = "end"


class Column(NamedTuple):
    """A column of a table.

    A value is shortened to no less than *least* columns of the terminal (None: never). An *optional* column is left
    out if the table does not fit otherwise. *typical* is the width of a value in rows that are not known yet.
    """

    name: str
    least: int | None = None
    shorten: Shorten = Shorten.MIDDLE
    optional: bool = False
    typical: int = 0


class TableLayout:
    """The widths of a table's columns, so that each row is one line of the terminal."""

    def __init__(
        self, columns: Sequence[Column], rows: Iterable[Sequence[str]], *, width: int | None, more_rows: bool = False
    ) -> None:
        """*width* is that of the terminal; with None nothing is shortened or left out. Are *more_rows* to come?"""
        cells = [[_cell(value) for value in row] for row in rows]
        full = [
            max([column.typical if more_rows else 0, cell_len(column.name), *(cell_len(row[at]) for row in cells)])
            for at, column in enumerate(columns)
        ]
        self._columns = columns
        self._cuts = width is not None
        self._widths = dict(enumerate(full)) if width is None else _fit(columns, full, width)

    def header(self) -> str:
        """Return the line with the names of the columns."""
        return self.row([column.name for column in self._columns])

    def row(self, values: Sequence[str]) -> str:
        """Return the line of a row, in which nothing can steer a terminal."""
        cells = []
        for at, width in self._widths.items():
            cell = _cell(values[at])
            if self._cuts:
                cell = shortened(cell, width, self._columns[at].shorten)
            cells.append(cell + " " * (width - cell_len(cell)))
        return COLUMN_GAP.join(cells).rstrip()


def terminal_width(*, wide: bool) -> int | None:
    """Return the width to fit a table into; None for a pipe, a file and `--wide`."""
    return console().width if sys.stdout.isatty() and not wide else None


def print_table(columns: Sequence[Column], rows: Sequence[Sequence[str]], *, wide: bool) -> None:
    """Print a table that fits the terminal; *wide* prints every value whole."""
    layout = TableLayout(columns, rows, width=terminal_width(wide=wide))
    print_header(layout)
    for row in rows:
        print_line(layout.row(row))


def print_header(layout: TableLayout) -> None:
    """Print the names of a table's columns."""
    print_line(layout.header(), style="bold")


def print_line(line: str, style: str = "") -> None:
    """Print a line as it is, and flush it."""
    screen = console()
    screen.print(Text(line, style=style), soft_wrap=True)
    sys.stdout.flush()


def shortened(text: str, width: int, where: Shorten) -> str:
    """Return *text* if it fits into *width* columns, else as much of it as fits beside an ellipsis."""
    if cell_len(text) <= width:
        return text
    room = max(width - cell_len(ELLIPSIS), 0)
    tail = {Shorten.START: room, Shorten.MIDDLE: room // 2, Shorten.END: 0}[where]
    start = _prefix(text, room - tail)
    end = _prefix(text[::-1], tail)[::-1]
    return f"{start}{ELLIPSIS}{end}"


def _prefix(text: str, width: int) -> str:
    """Return the longest start of *text* that fits into *width* columns."""
    length = min(len(text), width)
    while cell_len(text[:length]) > width:
        length -= 1
    return text[:length]


def _cell(value: str) -> str:
    """Return *value* as one line, escaped as it would be when it is printed, so that its width is known."""
    return escaped(" ".join(value.split()) if not value.isprintable() else value)


def _fit(columns: Sequence[Column], full: Sequence[int], width: int) -> dict[int, int]:
    """Return the width of each column that is shown, by its number."""
    least = {at: full[at] if column.least is None else min(full[at], column.least) for at, column in enumerate(columns)}
    for at, column in enumerate(columns):
        if column.optional and _total(least) > width:
            del least[at]
    while narrow := [at for at in least if least[at] < full[at]]:  # share what is left, one column of the screen each
        for at in narrow:
            if _total(least) >= width:
                return least
            least[at] += 1
    return least


def _total(widths: dict[int, int]) -> int:
    return sum(widths.values()) + len(COLUMN_GAP) * (len(widths) - 1)
