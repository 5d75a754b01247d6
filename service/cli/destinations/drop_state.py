"""`destinations drop-state`: drop the state of a relay that was removed."""

from typing import Final

import click

from service import clock
from service.cli import delivery_store
from service.cli.events import filters
from service.cli.shared_options import dry_run_option, yes_option

RUNNING_SECONDS: Final = 150  # a running relay stores a heartbeat each minute


@click.command("drop-state", short_help="Drop the state of a relay that was removed.")
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
