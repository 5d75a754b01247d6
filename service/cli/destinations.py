"""`destinations`: how those to whom the relay delivers stand, and stopping one."""

import json
from typing import Final

import click

from service import clock
from service.cli import delivery_store
from service.cli.console import print_table
from service.cli.events import filters
from service.cli.shared_options import dry_run_option, json_lines_option, yes_option
from service.events import rfc3339
from service.storage.deliveries import DestinationStatus

RUNNING_SECONDS: Final = 150  # a relay that runs gives a sign of life each minute
BY_HAND: Final = "by hand"


@click.group(short_help="List, stop and start the relay's destinations.")
def destinations() -> None:
    """Look at the destinations that the relay delivers to, stop one, or let it go on."""


@destinations.command("list", short_help="List the destinations, and what waits for each.")
@filters.inbox_option
@json_lines_option
def list_(inbox: str | None, *, as_json: bool) -> None:
    """List every destination that a relay ever read in the file, and what it is owed.

    \b
    whatsapp-webhook destinations list
    """  # noqa: D301  click wants the character
    with delivery_store.opened(filters.where(inbox)) as records:
        statuses = records.statuses()
    if as_json:
        for status in statuses:
            click.echo(json.dumps(status._asdict()))
        return
    if not statuses:
        click.echo("No destinations yet: the file that WEBHOOK_DESTINATIONS names holds none.")
        return
    print_table(
        ("name", "state", "backlog", "oldest", "dead"),
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
    )


@destinations.command(short_help="Deliver to a destination again.")
@filters.inbox_option
@click.argument("name")
def enable(inbox: str | None, name: str) -> None:
    """Deliver to a destination again; what it is owed comes first, in order."""
    _switch(inbox, name, None)


@destinations.command(short_help="Stop delivering to a destination.")
@filters.inbox_option
@click.argument("name")
@click.option("--reason", default=BY_HAND, show_default=True, help="What `destinations list` says of it.")
def disable(inbox: str | None, name: str, reason: str) -> None:
    """Deliver nothing more to a destination until it is enabled; what comes meanwhile is kept for the retention."""
    _switch(inbox, name, reason)


@destinations.command("drop-state", short_help="Drop everything that a removed relay left behind.")
@filters.inbox_option
@dry_run_option
@yes_option
def drop_state(inbox: str | None, *, dry_run: bool, yes: bool) -> None:
    """Drop all that a relay remembers of this inbox: positions, undelivered events, dead letters.

    For an installation whose relay was removed: from then on nothing is kept for it, and the inbox purges by its
    retention alone. A relay that is started later begins with nothing. Refused while a relay runs.

    \b
    whatsapp-webhook destinations drop-state --dry-run
    """  # noqa: D301  click wants the character
    with delivery_store.opened(filters.where(inbox)) as records:
        silent = (clock.now_ms() - records.heartbeat()) / 1000
        if -RUNNING_SECONDS < silent < RUNNING_SECONDS:  # further ahead, it is of a clock that ran ahead
            raise click.ClickException(
                f"A relay gave a sign of life {max(silent, 0):.0f} seconds ago: stop it, wait {RUNNING_SECONDS} "
                "seconds, and run this again."
            )
        statuses = records.statuses()
        owed, dead = sum(each.backlog for each in statuses), sum(each.dead_letters for each in statuses)
        told = f"{len(statuses)} destinations, {owed} undelivered events and {dead} dead letters"
        if dry_run:
            click.echo(f"Would drop: {told}.")
            return
        if not yes:
            click.confirm(f"Drop {told}?", abort=True)
        records.clear()
    click.echo(f"Dropped: {told}.")


def _switch(inbox: str | None, name: str, reason: str | None) -> None:
    with delivery_store.opened(filters.where(inbox)) as records:
        known = {each.name: each for each in records.statuses()}
        if name not in known:
            there = ", ".join(sorted(known)) or "none yet"
            raise click.ClickException(f"There is no destination {name!r}; there are: {there}.")
        changed = records.disable(name, reason)
    word = "disabled" if reason else "enabled"
    click.echo(f"{name} is {word}." if changed else f"{name} was {word} already.")


def _state_of(status: DestinationStatus) -> str:
    if status.disabled is not None:
        return f"disabled: {status.disabled}"
    return f"not in the file since {rfc3339(status.gone_since)[:19]}" if status.gone_since else "enabled"
