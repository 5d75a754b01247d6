"""Options that several commands have, each built once; and a group of options that is handed over as one value."""

import functools
import inspect
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Final, TypeAlias

import click

from service.config import ids

Decorator: TypeAlias = Callable[[Callable[..., None]], Callable[..., None]]


def option_group(name: str, build: Callable[..., object], options: Sequence[Decorator]) -> Decorator:
    """Return a decorator that gives a command *options*, and what *build* makes of their values as argument *name*.

    *build* has a parameter for each of the options, and no other.
    """
    taken = tuple(inspect.signature(build).parameters)

    def decorate(command: Callable[..., None]) -> Callable[..., None]:
        @functools.wraps(command)
        def with_group(**arguments: Any) -> None:
            values = {each: arguments.pop(each) for each in taken}
            command(**{name: build(**values)}, **arguments)

        decorated: Callable[..., None] = with_group
        for option in reversed(options):
            decorated = option(decorated)
        return decorated

    return decorate


class MetaId(click.ParamType[str]):
    """An id of Meta's: digits."""

    name = "id"

    def convert(self, value: str, param: click.Parameter | None, ctx: click.Context | None) -> str:
        """Read it."""
        try:
            (found,) = ids(value)
        except ValueError:
            self.fail(f"{value!r} is no id: digits alone, as Meta's dashboard shows it.", param, ctx)
        return found


META_ID: Final = MetaId()
app_option = click.option("--app", type=META_ID, help="The app at Meta, if not the one of WEBHOOK_APP_ID.")
account_option = click.option(
    "--account",
    type=META_ID,
    multiple=True,
    help="A WhatsApp Business account, if not those of WEBHOOK_ACCOUNTS; may repeat.",
)
credentials_option = click.option(
    "--credentials",
    metavar="DIRECTORY",
    type=click.Path(path_type=Path),
    help="Where verify-token, app-secret and access-token are, if not in WEBHOOK_CREDENTIALS_DIR.",
)
dry_run_option = click.option("--dry-run", is_flag=True, help="Show what would happen, and do nothing.")
yes_option = click.option("--yes", is_flag=True, help="Do not ask.")
json_option = click.option("--json", "as_json", is_flag=True, help="One JSON object.")
json_lines_option = click.option("--json", "as_json", is_flag=True, help="One JSON object per line.")
wide_option = click.option(
    "--wide", is_flag=True, help="Print every column and value whole, even if a line is longer than the terminal."
)
