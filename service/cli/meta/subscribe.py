"""`subscribe`: have Meta send to a URL."""

from typing import Final

import click

from service.cli.console import console, wrapped
from service.cli.meta.apply import carry_out
from service.cli.meta.options import Asked, asking, url_of
from service.cli.shared_options import META_ID, dry_run_option, yes_option
from service.config import misspelt, names
from service.meta.graph import plan, registration
from service.meta.graph.plan_types import Allowed, Plan, Wanted
from service.meta.graph.registration import App
from service.meta.webhook_fields import FIELDS, NOT_CHOSEN

MAX_OVERRIDE_CHARACTERS: Final = 200  # characters of a URL, says "Webhooks > Overrides" of Meta's documentation
_ALL: Final = frozenset(FIELDS) - NOT_CHOSEN


def _list_fields(ctx: click.Context, _param: click.Parameter, value: bool) -> None:  # noqa: FBT001  click's
    if value:
        screen, width = console(), max(map(len, FIELDS)) + 2
        for name in FIELDS:
            if name not in NOT_CHOSEN:
                click.echo(wrapped(f"{name:<{width}}{FIELDS[name]}", screen, width))
        ctx.exit()


@click.command(short_help="Register a URL at Meta, so that it sends there.")
@click.argument("url", required=False)
@asking
@click.option(
    "--fields",
    metavar="NAMES",
    help="Fields with commas between, or `all`. Without: those of WEBHOOK_FIELDS, else those registered now, else all.",
)
@click.option(
    "--override-account", type=META_ID, multiple=True, help="Send what comes for this account to URL; may repeat."
)
@click.option("--override-number", type=META_ID, multiple=True, help="The same for one phone number id; may repeat.")
@click.option("--replace", is_flag=True, help="Take the place of another URL that is registered.")
@click.option("--drop-overrides", is_flag=True, help="Remove overrides that send elsewhere.")
@click.option(
    "--force", is_flag=True, help="Also where nothing changes: Meta takes the verify token that is in force now."
)
@dry_run_option
@yes_option
@click.option(
    "--list-fields", is_flag=True, is_eager=True, expose_value=False, callback=_list_fields, help="Name every field."
)
def subscribe(
    asked: Asked,
    url: str | None,
    fields: str | None,
    override_account: tuple[str, ...],
    override_number: tuple[str, ...],
    *,
    replace: bool,
    drop_overrides: bool,
    again: bool,
    dry_run: bool,
    yes: bool,
) -> None:
    """Have Meta send the app's notifications to URL (or WEBHOOK_CALLBACK_URL).

    Registers the URL, the verify token and the fields for the app, and subscribes the app to the accounts. Says first
    what is registered now and what will change, and asks. Meta does its handshake with the URL at once, so the service
    must be reachable. May be run again: what is so already stays.

    With --override-account or --override-number the app keeps its own URL, and only what comes for these goes to URL.

    \b
    whatsapp-webhook subscribe https://wa.example.com/webhooks --app 188559381496048 --account 102290129340398
    whatsapp-webhook subscribe https://test.example.com/webhooks --override-number 106540352242922
    """  # noqa: D301  click wants the character
    overridden = frozenset(override_account) | frozenset(override_number)
    if overridden:
        _refuse_beside_overrides(fields)
    asked.keys.require("verify-token", *(("access-token",) if overridden or asked.accounts else ()))
    wanted = Wanted(
        url_of(url, asked.config, longest=MAX_OVERRIDE_CHARACTERS if overridden else None),
        asked.keys.verify_token.decode("utf-8", "replace"),
        _fields(fields, asked),
        overridden,
    )
    accounts = tuple(dict.fromkeys((*override_account, *(() if wanted.overridden else asked.accounts))))
    at_first = _fields_of(registration.app(asked.graph))
    chosen = wanted.fields or at_first or _ALL

    def made(allowed: Allowed) -> Plan:
        graph = asked.graph
        app = registration.app(graph)
        return plan.subscription(
            # What somebody else adds meanwhile is theirs.
            wanted._replace(fields=chosen | (_fields_of(app) - at_first)),
            app,
            registration.accounts(graph, accounts),
            [registration.number(graph, each) for each in override_number],
            allowed,
        )

    allowed = Allowed(replace=replace, drop_overrides=drop_overrides, again=again)
    then = allowed._replace(again=False)
    carry_out(asked.graph, lambda: made(allowed), lambda: made(then), dry_run=dry_run, yes=yes)
    if override_number:
        click.echo(
            "note: whether the app is subscribed to the number's account was not looked at, and without that nothing "
            "comes of it: `status --account ID` tells."
        )
    if not accounts and not wanted.overridden:
        click.echo(
            "note: no account was named: Meta sends nothing of an account until the app is subscribed to it. "
            "Name yours with --account, or in WEBHOOK_ACCOUNTS."
        )


def _fields_of(app: App) -> frozenset[str]:
    return frozenset(app.subscription.fields if app.subscription else ())


def _refuse_beside_overrides(fields: str | None) -> None:
    if fields is not None or click.get_current_context().params.get("account"):
        raise click.UsageError(
            "With --override-account or --override-number the app's own subscription is left alone: leave --fields and "
            "--account out, or run `subscribe` once without overrides and once with them."
        )


def _fields(given: str | None, asked: Asked) -> frozenset[str]:
    """Read which fields are wanted; none for those that are registered."""
    chosen = names(given) if given is not None else asked.config.fields
    if chosen == {"all"}:
        return _ALL
    wrong = misspelt(chosen, [*FIELDS, "all"])
    if wrong:
        said = "; ".join(f"{name!r}: did you mean {close!r}?" for name, close in wrong.items())
        raise click.BadParameter(f"Meta has no such field: {said}", param_hint="--fields")
    for name in sorted(chosen - set(FIELDS)):
        if name == "all":
            raise click.BadParameter("`all` stands alone.", param_hint="--fields")
        click.echo(
            f"note: this version does not know the field {name!r}; whether there is one, Meta will say.", err=True
        )
    return chosen
