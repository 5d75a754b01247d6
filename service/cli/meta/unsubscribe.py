"""`unsubscribe`: have Meta send nothing to a URL any more."""

import click

from service.cli.meta.apply import carry_out
from service.cli.meta.options import Asked, asking, numbers_option
from service.cli.shared_options import dry_run_option, yes_option
from service.meta.graph import plan, registration, urls
from service.meta.graph.plan_types import Allowed, Plan


@click.command(short_help="Stop Meta from sending to a URL.")
@click.argument("url", required=False)
@asking
@numbers_option("A phone number id whose override to URL ends too; may repeat.")
@click.option("--drop-overrides", is_flag=True, help="Also where an account's override to another URL goes with it.")
@dry_run_option
@yes_option
def unsubscribe(
    asked: Asked, url: str | None, numbers: tuple[str, ...], *, drop_overrides: bool, dry_run: bool, yes: bool
) -> None:
    """Have Meta send nothing to URL (or WEBHOOK_CALLBACK_URL) any more.

    Where it is the app's own URL, the app's subscription and that of the accounts end. Where it is an override of an
    account or a number, that is removed, and what comes for it goes to the app's own URL again. Says first what will
    change, and asks.

    \b
    whatsapp-webhook unsubscribe https://wa.example.com/webhooks --app 188559381496048 --account 102290129340398
    """  # noqa: D301  click wants the character
    callback_url = url or asked.config.callback_url
    if "://" not in callback_url:
        raise click.UsageError("Which URL? Give all of it, https:// too, as an argument or in WEBHOOK_CALLBACK_URL.")
    if numbers or asked.accounts:
        asked.keys.require("access-token")

    def made() -> Plan:
        graph = asked.graph
        return plan.end(
            callback_url,
            registration.app(graph),
            registration.accounts(graph, asked.accounts),
            [registration.number(graph, each) for each in numbers],
            Allowed(drop_overrides=drop_overrides),
        )

    there = registration.app(asked.graph).subscription
    own = there.callback_url if there else ""
    if urls.same(own, callback_url):
        click.echo(
            "note: overrides of accounts that are not named here, if there are any, are not seen, and end as well."
        )
    first = made()
    if not first.steps and not first.refusals:
        click.echo(
            f"Nothing to change: of what was looked at, nothing is sent to {callback_url}. "
            + (f"The app sends to {own}." if own else "The app has no callback URL.")
        )
        return
    carry_out(asked.graph, made, made, dry_run=dry_run, yes=yes)
