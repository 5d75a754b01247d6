"""`destinations`: list the relay's destinations, disable and enable them, and drop the state of a removed relay."""

import json
from typing import Final

import click

from service import clock
from service.cli import delivery_store
from service.cli.console import Column, Shorten, print_table
from service.cli.events import filters
from service.cli.shared_options import dry_run_option, json_lines_option, wide_option, yes_option
from service.events import rfc3339
from service.storage.deliveries import DestinationStatus

RUNNING_SECONDS: Final = 150  # a running relay stores a heartbeat each minute
BY_HAND: Final = "by hand"
_COLUMNS: Final = (
    Column("name", least=12),
    Column("state", least=20, shorten=Shorten.END),
    Column("backlog"),
    Column("oldest"),
    Column("dead letters"),
)


@click.group(short_help="List, disable and enable the relay's destinations.")
def destinations() -> None:
    """List the destinations that the relay delivers to, disable one, or enable it again.

    \b
    whatsapp-webhook destinations list
    """  # noqa: D301  click requires the character


@destinations.command("list", short_help="List the destinations with state and backlog.")
@filters.inbox_option
@wide_option
@json_lines_option
def list_(inbox: str | None, *, wide: bool, as_json: bool) -> None:
    """List each destination with its state, its backlog (pending events) and its dead letters.

    A destination that is no longer in the file of WEBHOOK_DESTINATIONS is listed too.

    \b
    whatsapp-webhook destinations list
    """  # noqa: D301  click requires the character
    with delivery_store.opened(filters.inbox_of(inbox)) as records:
        statuses = records.statuses()
    if as_json:
        for status in statuses:
            click.echo(json.dumps(status._asdict()))
        return
    if not statuses:
        click.echo("No destinations yet: no relay has read one from the file of WEBHOOK_DESTINATIONS.")
        return
    print_table(
        _COLUMNS,
        [
            (
                each.name,
                _state_of(each),
                str(each.backlog),
                rfc3339(each.oldest)[:19] if each.oldest else "",
                str(each.dead_letters),
            )
            for each in statuses
        ],
        wide=wide,
    )


@destinations.command(short_help="Deliver to a disabled destination again.")
@filters.inbox_option
@click.argument("name")
def enable(inbox: str | None, name: str) -> None:
    """Deliver to a disabled destination again, its pending events first and in order.

    \b
    whatsapp-webhook destinations enable bot
    """  # noqa: D301  click requires the character
    _switch(inbox, name, None)


@destinations.command(short_help="Stop delivering to a destination.")
@filters.inbox_option
@click.argument("name")
@click.option("--reason", default=BY_HAND, show_default=True, help="Shown by `destinations list`.")
def disable(inbox: str | None, name: str, reason: str) -> None:
    """Deliver nothing to a destination until it is enabled again.

    Its events stay pending meanwhile, until they are older than WEBHOOK_BODY_RETENTION. Then their data is purged: they
    become dead letters that cannot be replayed.

    \b
    whatsapp-webhook destinations disable bot --reason 'maintenance until 14:00'
    """  # noqa: D301  click requires the character
    _switch(inbox, name, reason)


@destinations.command("drop-state", short_help="Drop the state of a relay that was removed.")
@filters.inbox_option
@dry_run_option
@yes_option
def drop_state(inbox: str | None, *, dry_run: bool, yes: bool) -> None:
    """Drop the relay's state for this inbox: positions, pending deliveries and dead letters.

    Use it if the relay was removed for good. From then on the inbox purges by its retention alone, and keeps nothing
    longer for the relay. A relay that is started later has no history. Refused while a relay
    is running, and for 150 seconds after it stopped.

    \b
    whatsapp-webhook destinations drop-state --dry-run
    """  # noqa: D301  click requires the character
    with delivery_store.opened(filters.inbox_of(inbox)) as records:
        age = (clock.now_ms() - records.heartbeat()) / 1000
        if -RUNNING_SECONDS < age < RUNNING_SECONDS:  # one further in the future is from a wrong clock
            raise click.ClickException(
                f"A relay was running {max(age, 0):.0f} seconds ago. Stop it, wait {RUNNING_SECONDS} seconds, and run "
                "this command again."
            )
        statuses = records.statuses()
        backlog, dead_letters = sum(each.backlog for each in statuses), sum(each.dead_letters for each in statuses)
        state = f"the state of {len(statuses)} destinations, {backlog} pending deliveries, {dead_letters} dead letters"
        if dry_run:
            click.echo(f"Would drop: {state}.")
            return
        if not yes:
            click.confirm(f"Drop {state}?", abort=True)
        records.clear()
    click.echo(f"Dropped: {state}.")


def _switch(inbox: str | None, name: str, reason: str | None) -> None:
    with delivery_store.opened(filters.inbox_of(inbox)) as records:
        known = {each.name: each for each in records.statuses()}
        if name not in known:
            there = ", ".join(sorted(known)) or "none yet"
            raise click.ClickException(f"There is no destination {name!r}. Destinations: {there}.")
        changed = records.disable(name, reason)
    word = "disabled" if reason else "enabled"
    click.echo(f"{name} is {word}." if changed else f"{name} is {word} already.")


def _state_of(status: DestinationStatus) -> str:
    if status.disabled is not None:
        return f"disabled: {status.disabled}"
    return f"not in the file since {rfc3339(status.gone_since)[:19]}" if status.gone_since else "enabled"
