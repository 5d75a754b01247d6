"""Options that several commands share, and groups of options that a command gets as one value."""

import functools
import inspect
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Final, TypeAlias

import click

from service.config import ids

Decorator: TypeAlias = Callable[[Callable[..., None]], Callable[..., None]]


def option_group(name: str, build: Callable[..., object], options: Sequence[Decorator]) -> Decorator:
    """Return a decorator that adds *options* to a command, and passes what *build* returns for them as argument *name*.

    *build* has one parameter per option.
    """
    parameters = tuple(inspect.signature(build).parameters)

    def decorate(command: Callable[..., None]) -> Callable[..., None]:
        @functools.wraps(command)
        def with_group(**arguments: Any) -> None:
            values = {each: arguments.pop(each) for each in parameters}
            command(**{name: build(**values)}, **arguments)

        decorated: Callable[..., None] = with_group
        for option in reversed(options):
            decorated = option(decorated)
        return decorated

    return decorate


class MetaId(click.ParamType[str]):
    """An id from Meta: digits."""

    name = "id"

    def convert(self, value: str, param: click.Parameter | None, ctx: click.Context | None) -> str:
        """Return the id."""
        try:
            (meta_id,) = ids(value)
        except ValueError:
            self.fail(f"{value!r} is not an id: it must be digits, as in Meta's dashboard.", param, ctx)
        return meta_id


META_ID: Final = MetaId()
app_option = click.option("--app", type=META_ID, help="Id of the app at Meta. Default: WEBHOOK_APP_ID.")
account_option = click.option(
    "--account",
    type=META_ID,
    multiple=True,
    help="Id of a WhatsApp Business account; can be repeated. Default: WEBHOOK_ACCOUNTS.",
)
credentials_option = click.option(
    "--credentials",
    metavar="DIRECTORY",
    type=click.Path(path_type=Path),
    help="Directory with the files verify-token, app-secret and access-token. Default: WEBHOOK_CREDENTIALS_DIR.",
)
dry_run_option = click.option("--dry-run", is_flag=True, help="Print what would be done, without doing it.")
yes_option = click.option("--yes", is_flag=True, help="Do not ask for confirmation.")
json_option = click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
json_lines_option = click.option("--json", "as_json", is_flag=True, help="Print one JSON object per line.")
wide_option = click.option(
    "--wide", is_flag=True, help="Shorten no value and omit no column, even if lines get longer than the terminal."
)
