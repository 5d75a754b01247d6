"""`status`: what is registered at Meta."""

import json
from collections.abc import Iterable, Iterator, Sequence

import click

from service.cli.console import console, wrapped
from service.cli.meta.options import Asked, asking, numbers_option
from service.cli.shared_options import json_option
from service.meta.graph import registration
from service.meta.graph.registration import Account, App, RegisteredNumber


@click.command(short_help="Show what is registered at Meta.")
@asking
@numbers_option("A phone number id to look at, beside those of the accounts; may repeat.")
@json_option
def status(asked: Asked, numbers: tuple[str, ...], *, as_json: bool) -> None:
    """Say what is registered at Meta: the app's URL and fields, its accounts, and overrides.

    \b
    whatsapp-webhook status --app 188559381496048 --account 102290129340398
    """  # noqa: D301  click wants the character
    app = registration.app(asked.graph)
    if not as_json:  # what is known is told, whatever comes of the rest
        _tell(_of_app(app))
    if numbers or asked.accounts:
        asked.keys.require("access-token")
    accounts = registration.accounts(asked.graph, asked.accounts)
    found = [registration.number(asked.graph, each) for each in numbers]
    if as_json:
        click.echo(json.dumps(_document(app, accounts, found), indent=2))
        return
    _tell(line for account in accounts for line in _of_account(account))
    _tell(map(_of_number, found))
    if not accounts:
        click.echo("Accounts were not asked: name them with --account, or in WEBHOOK_ACCOUNTS.")


def _tell(lines: Iterable[str]) -> None:
    screen = console()
    for line in lines:
        click.echo(wrapped(line, screen, 16))


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
        yield "  not subscribed: Meta sends nothing of WhatsApp"
        return
    yield f"  callback URL  {app.subscription.callback_url}{'' if app.subscription.active else ' (not active)'}"
    yield f"  fields        {', '.join(app.subscription.fields) or 'none'}"


def _of_account(account: Account) -> Iterator[str]:
    yield f"account {account.id} ({account.name})"
    yield f"  {'subscribed' if account.is_subscribed else 'not subscribed: Meta sends nothing of it to this app'}"
    if account.override:
        yield f"  override      {account.override}"
    for number in account.numbers:
        yield f"  {_of_number(number)}"


def _of_number(number: RegisteredNumber) -> str:
    return f"number {number.id} ({number.shown})" + (f"  override {number.override}" if number.override else "")
