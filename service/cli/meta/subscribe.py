"""`subscribe`: register a callback URL at Meta."""

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

MAX_OVERRIDE_CHARACTERS: Final = 200  # of a URL: Meta's documentation, "Webhooks > Overrides"
_ALL_FIELDS: Final = frozenset(FIELDS) - NOT_CHOSEN


def _list_fields(ctx: click.Context, _param: click.Parameter, value: bool) -> None:  # noqa: FBT001  click's
    if value:
        screen, width = console(), max(map(len, FIELDS)) + 2
        for name in FIELDS:
            if name not in NOT_CHOSEN:
                click.echo(wrapped(f"{name:<{width}}{FIELDS[name]}", screen, width))
        ctx.exit()


@click.command(short_help="Register a callback URL at Meta.")
@click.argument("url", required=False)
@asking
@click.option(
    "--fields",
    metavar="NAMES",
    help="Webhook fields, separated by commas, or `all`. Default: those of WEBHOOK_FIELDS. If that is empty: the "
    "fields registered now. If none are registered: all.",
)
@click.option(
    "--override-account", type=META_ID, multiple=True, help="Send the events of this account to URL; can be repeated."
)
@click.option(
    "--override-number",
    type=META_ID,
    multiple=True,
    help="Send the events of this phone number id to URL; can be repeated.",
)
@click.option("--replace", is_flag=True, help="Replace another URL that is registered.")
@click.option("--drop-overrides", is_flag=True, help="Remove overrides that send events of the accounts to other URLs.")
@click.option(
    "--force", is_flag=True, help="Register again even if nothing changes, for example with a new verify token."
)
@dry_run_option
@yes_option
@click.option(
    "--list-fields",
    is_flag=True,
    is_eager=True,
    expose_value=False,
    callback=_list_fields,
    help="List every webhook field and exit.",
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
    force: bool,
    dry_run: bool,
    yes: bool,
) -> None:
    """Register URL (or WEBHOOK_CALLBACK_URL) at Meta, which then sends the app's notifications there.

    Registers the URL, the verify token and the fields for the app, and subscribes the app to the accounts. Prints what
    is registered now and what will change, and asks for confirmation. Meta does its handshake with the URL immediately,
    so the service must be running and reachable. Running the command again changes only what differs.

    With --override-account or --override-number the app keeps its own URL, and only the events of these accounts and
    numbers are sent to URL.

    \b
    whatsapp-webhook subscribe https://wa.example.com/webhooks \\
      --app 188559381496048 --account 102290129340398
    whatsapp-webhook subscribe https://test.example.com/webhooks \\
      --app 188559381496048 --override-number 106540352242922
    """  # noqa: D301  click requires the character
    overridden = frozenset(override_account) | frozenset(override_number)
    if overridden:
        _reject_beside_overrides(fields)
    asked.keys.require("verify-token", *(("access-token",) if overridden or asked.accounts else ()))
    wanted = Wanted(
        url_of(url, asked.config, max_characters=MAX_OVERRIDE_CHARACTERS if overridden else None),
        asked.keys.verify_token.decode("utf-8", "replace"),
        _fields(fields, asked),
        overridden,
    )
    accounts = tuple(dict.fromkeys((*override_account, *(() if wanted.overridden else asked.accounts))))
    initial_fields = _fields_of(registration.app(asked.graph))
    wanted_fields = wanted.fields or initial_fields or _ALL_FIELDS

    def planned(allowed: Allowed) -> Plan:
        graph = asked.graph
        app = registration.app(graph)
        return plan.subscription(
            # A field that somebody else adds meanwhile is kept.
            wanted._replace(fields=wanted_fields | (_fields_of(app) - initial_fields)),
            app,
            registration.accounts(graph, accounts),
            [registration.number(graph, each) for each in override_number],
            allowed,
        )

    allowed = Allowed(replace=replace, drop_overrides=drop_overrides, again=force)
    carry_out(
        asked.graph,
        lambda: planned(allowed),
        lambda: planned(allowed._replace(again=False)),
        dry_run=dry_run,
        yes=yes,
    )
    if override_number:
        click.echo(
            "note: it was not checked whether the app is subscribed to the number's account. Without that, Meta sends "
            "no events of the number. Check it with `whatsapp-webhook status --account ID`."
        )
    if not accounts and not wanted.overridden:
        click.echo(
            "note: no account was named. Meta sends no events of an account until the app is subscribed to it. "
            "Name yours with --account or in WEBHOOK_ACCOUNTS."
        )


def _fields_of(app: App) -> frozenset[str]:
    return frozenset(app.subscription.fields if app.subscription else ())


def _reject_beside_overrides(fields: str | None) -> None:
    if fields is not None or click.get_current_context().params.get("account"):
        raise click.UsageError(
            "--override-account and --override-number do not change the app's own subscription: omit --fields and "
            "--account, or run `subscribe` once without overrides and once with them."
        )


def _fields(option: str | None, asked: Asked) -> frozenset[str]:
    """Return the wanted fields; an empty set means those that are registered."""
    wanted = names(option) if option is not None else asked.config.fields
    if wanted == {"all"}:
        return _ALL_FIELDS
    if wrong := misspelt(wanted, [*FIELDS, "all"]):
        suggestions = "; ".join(f"{name!r}: did you mean {close!r}?" for name, close in wrong.items())
        raise click.BadParameter(f"Meta has no such field: {suggestions}", param_hint="--fields")
    for name in sorted(wanted - set(FIELDS)):
        if name == "all":
            raise click.BadParameter("`all` cannot be combined with other fields.", param_hint="--fields")
        click.echo(f"note: this version does not know the field {name!r}. Meta will check it.", err=True)
    return wanted
