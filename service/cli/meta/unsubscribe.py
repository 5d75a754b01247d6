"""`unsubscribe`: stop Meta from sending to a URL."""

import click

from service.cli.meta.apply import carry_out
from service.cli.meta.options import Asked, asking, numbers_option
from service.cli.shared_options import dry_run_option, yes_option
from service.meta.graph import plan, registration, urls
from service.meta.graph.plan_types import Allowed, Plan


@click.command(short_help="Stop Meta from sending to a URL.")
@click.argument("url", required=False)
@asking
@numbers_option("Also remove the override of this phone number id, if the override points to URL; can be repeated.")
@click.option(
    "--drop-overrides", is_flag=True, help="Unsubscribe accounts even if that removes an override to another URL."
)
@dry_run_option
@yes_option
def unsubscribe(
    asked: Asked, url: str | None, numbers: tuple[str, ...], *, drop_overrides: bool, dry_run: bool, yes: bool
) -> None:
    """Stop Meta from sending to URL (or WEBHOOK_CALLBACK_URL).

    If URL is the app's own callback URL, the app's subscription and those of the accounts are removed. If URL is an
    override of an account or a number, the override is removed, and its events are sent to the app's own URL again.
    Prints what will change, and asks for confirmation.

    \b
    whatsapp-webhook unsubscribe https://wa.example.com/webhooks \\
      --app 188559381496048 --account 102290129340398
    """  # noqa: D301  click requires the character
    callback_url = url or asked.config.callback_url
    if "://" not in callback_url:
        raise click.UsageError("Which URL? Give it with https://, as an argument or in WEBHOOK_CALLBACK_URL.")
    if numbers or asked.accounts:
        asked.keys.require("access-token")

    def planned() -> Plan:
        graph = asked.graph
        return plan.end(
            callback_url,
            registration.app(graph),
            registration.accounts(graph, asked.accounts),
            [registration.number(graph, each) for each in numbers],
            Allowed(drop_overrides=drop_overrides),
        )

    subscription = registration.app(asked.graph).subscription
    own = subscription.callback_url if subscription else ""
    if urls.same(own, callback_url):
        click.echo(
            "note: accounts that are not named here were not checked. If they have overrides, those are removed too."
        )
    first = planned()
    if not first.steps and not first.refusals:
        click.echo(
            f"Nothing to change: nothing that was checked is sent to {callback_url}. "
            + (f"The app sends to {own}." if own else "The app has no callback URL.")
        )
        return
    carry_out(asked.graph, planned, planned, dry_run=dry_run, yes=yes)
