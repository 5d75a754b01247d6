"""`status`: print what is registered at Meta."""

import json
from collections.abc import Iterable, Iterator, Sequence
from typing import Final

import click

from service.cli.console import Shorten, console, shortened, terminal_width, wrapped
from service.cli.meta.options import Asked, asking, numbers_option
from service.cli.shared_options import json_option, wide_option
from service.meta.graph import registration
from service.meta.graph.registration import Account, App, RegisteredNumber

INDENT_COLUMNS: Final = 16


@click.command(short_help="Show what is registered at Meta.")
@asking
@numbers_option("Also show this phone number id; can be repeated. The numbers of each --account are always shown.")
@wide_option
@json_option
def status(asked: Asked, numbers: tuple[str, ...], *, wide: bool, as_json: bool) -> None:
    """Show what is registered at Meta: the app's callback URL and fields, its accounts, and overrides.

    Needs the app secret. Shows only the accounts and numbers that are named with options or in WEBHOOK_ACCOUNTS. For
    these it also needs an access token.

    \b
    whatsapp-webhook status --app 188559381496048 --account 102290129340398
    """  # noqa: D301  click requires the character
    app = registration.app(asked.graph)
    if not as_json:  # before what may fail
        _print_lines(_of_app(app), wide=wide)
    if numbers or asked.accounts:
        asked.keys.require("access-token")
    accounts = registration.accounts(asked.graph, asked.accounts)
    registered = [registration.number(asked.graph, each) for each in numbers]
    if as_json:
        click.echo(json.dumps(_document(app, accounts, registered), indent=2))
        return
    _print_lines((line for account in accounts for line in _of_account(account)), wide=wide)
    _print_lines(map(_of_number, registered), wide=wide)
    if not accounts:
        click.echo("No account was checked: name yours with --account or in WEBHOOK_ACCOUNTS.")


def _print_lines(lines: Iterable[str], *, wide: bool) -> None:
    """Print lines; on a terminal, wrapped at spaces, and words that are too long for a line shortened."""
    screen, width = console(), terminal_width(wide=wide)
    for line in lines:
        if width is None:
            click.echo(line)
        else:
            words = (shortened(word, width - INDENT_COLUMNS, Shorten.MIDDLE) for word in line.split(" "))
            click.echo(wrapped(" ".join(words), screen, INDENT_COLUMNS))


def _document(app: App, accounts: Sequence[Account], numbers: Sequence[RegisteredNumber]) -> dict[str, object]:
    subscription = app.subscription._asdict() if app.subscription else None
    return {
        "app": {"id": app.id, "name": app.name, "subscription": subscription},
        "accounts": [{**each._asdict(), "numbers": [number._asdict() for number in each.numbers]} for each in accounts],
        "numbers": [each._asdict() for each in numbers],
    }


def _of_app(app: App) -> Iterator[str]:
    yield f"app {app.id} ({app.name})"
    if app.subscription is None:
        yield "  not subscribed: Meta sends no WhatsApp events to this app"
        return
    yield f"  callback URL  {app.subscription.callback_url}{'' if app.subscription.active else ' (not active)'}"
    yield f"  fields        {', '.join(app.subscription.fields) or 'none'}"


def _of_account(account: Account) -> Iterator[str]:
    yield f"account {account.id} ({account.name})"
    yield f"  {'subscribed' if account.is_subscribed else 'not subscribed: Meta sends none of its events to this app'}"
    if account.override:
        yield f"  override      {account.override}"
    for number in account.numbers:
        yield f"  {_of_number(number)}"


def _of_number(number: RegisteredNumber) -> str:
    return f"number {number.id} ({number.shown})" + (f"  override {number.override}" if number.override else "")
