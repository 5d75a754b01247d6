"""`events dead-letters` lists deliveries that were given up; `events drop` gives up pending ones."""

from collections.abc import Mapping, Sequence
from contextlib import closing
from typing import Final

import click

from service.cli import delivery_store
from service.cli.console import Column, Shorten, print_table
from service.cli.events import filters
from service.cli.shared_options import wide_option
from service.config import InboxUrl
from service.events import rfc3339
from service.outcomes import DeadLetterReason
from service.storage import engines
from service.storage.deliveries import DeadLetter, DeadLetterGroup, DeliveryAdmin

DEFAULT_DEAD_LETTERS: Final = 50
MINUTE_CHARACTERS: Final = 16  # of a time without seconds
NOT_STORED: Final = "(no longer stored)"

_GROUPS: Final = (
    Column("destination", least=11),
    Column("reason"),
    Column("status"),
    Column("count"),
    Column("newest"),
    Column("position"),
    Column("type", least=13, shorten=Shorten.START),
)
_SINGLE: Final = (
    Column("given up"),
    Column("destination", least=11),
    Column("position"),
    Column("type", least=10, shorten=Shorten.START),
    Column("reason"),
    Column("status"),
    Column("attempts"),
)
destination_option = click.option(
    "--destination", "names", metavar="NAME", multiple=True, help="Only of this destination; can be repeated."
)
reason_option = click.option(
    "--reason",
    "reasons",
    type=click.Choice([each.value for each in DeadLetterReason]),
    multiple=True,
    help="Only dead letters with this reason; can be repeated.",
)
status_option = click.option(
    "--status",
    "statuses",
    metavar="STATUS",
    type=click.IntRange(0, 999),
    multiple=True,
    help="Only dead letters whose last response had this status, 0 for no response; can be repeated.",
)


def is_selected(
    each: DeadLetter | DeadLetterGroup, names: Sequence[str], reasons: Sequence[str], statuses: Sequence[int]
) -> bool:
    """Return whether the options select a dead letter, or a group of them."""
    return (
        (not names or each.destination in names)
        and (not reasons or each.reason in reasons)
        and (not statuses or each.status in statuses)
    )


@click.command(short_help="List dead letters with the reason.")
@filters.inbox_option
@destination_option
@reason_option
@status_option
@click.option("--each", is_flag=True, help="List each dead letter, not groups.")
@click.option(
    "--limit",
    metavar="COUNT",
    type=click.IntRange(1),
    default=DEFAULT_DEAD_LETTERS,
    show_default=True,
    help="With --each: list the newest COUNT.",
)
@wide_option
def dead_letters(
    inbox: str | None,
    names: tuple[str, ...],
    reasons: tuple[str, ...],
    statuses: tuple[int, ...],
    limit: int,
    *,
    each: bool,
    wide: bool,
) -> None:
    """List dead letters: deliveries that were given up. Groups them by destination, reason and last status.

    Time, position and type are those of the newest one of each group.

    `events show POSITION` prints every attempt with what the destination answered. `events replay --dead-letters`
    delivers them again; its options --destination, --reason and --status select the same dead letters.

    \b
    whatsapp-webhook events dead-letters
    whatsapp-webhook events dead-letters --each --destination bot
    whatsapp-webhook events replay --dead-letters --dry-run
    """  # noqa: D301  click requires the character
    url = filters.inbox_of(inbox)
    with delivery_store.opened(url) as records:
        if each:
            letters = records.dead_letters(limit=None)
            single = [letter for letter in letters if is_selected(letter, names, reasons, statuses)][-limit:]
            rows = _single_rows(records, single, url)
        else:
            groups = [group for group in records.dead_letter_groups() if is_selected(group, names, reasons, statuses)]
            rows = _group_rows(records, groups, url)
    if not rows:
        click.echo("No dead letters match the options." if names or reasons or statuses else "No dead letters.")
        return
    print_table(_SINGLE if each else _GROUPS, rows, wide=wide)


@click.command(short_help="Give up pending deliveries by hand.")
@filters.inbox_option
@click.argument("positions", metavar="POSITION...", nargs=-1, required=True, type=click.IntRange(1))
@click.option("--destination", "name", metavar="NAME", required=True, help="Give up its deliveries.")
def drop(inbox: str | None, positions: tuple[int, ...], name: str) -> None:
    """Make dead letters of pending deliveries, with the reason `dropped`: the deliveries behind them go on.

    If the relay attempts one of them right now, the command waits for the end of that attempt, which may deliver it.
    `events replay` delivers dead letters again.

    \b
    whatsapp-webhook events drop 42 --destination bot
    """  # noqa: D301  click requires the character
    with delivery_store.opened(filters.inbox_of(inbox)) as records:
        delivery_store.status_of(records, name)
        dropped = delivery_store.give_up(records, name, positions, DeadLetterReason.DROPPED)
        for position in positions:
            if position in dropped:
                click.echo(f"{position}: a dead letter of {name} now, with the reason dropped.")
            else:
                click.echo(f"{position}: not pending for {name}: {_state_of(records, position, name)}.", err=True)
    if len(dropped) < len(set(positions)):
        raise SystemExit(1)


def _state_of(records: DeliveryAdmin, position: int, name: str) -> str:
    states = {each.destination: each.state for each in records.history(position)}
    return states.get(name, "no delivery is known")


def _group_rows(records: DeliveryAdmin, groups: Sequence[DeadLetterGroup], url: InboxUrl) -> Sequence[Sequence[str]]:
    types = _types(records, [group.position for group in groups], url)
    return [
        (
            group.destination,
            group.reason,
            str(group.status or "none"),
            str(group.number),
            rfc3339(group.at)[:MINUTE_CHARACTERS],
            str(group.position),
            types.get(group.position, NOT_STORED),
        )
        for group in groups
    ]


def _single_rows(records: DeliveryAdmin, letters: Sequence[DeadLetter], url: InboxUrl) -> Sequence[Sequence[str]]:
    types = _types(records, [letter.position for letter in letters], url)
    return [
        (
            rfc3339(letter.at)[:MINUTE_CHARACTERS],
            letter.destination,
            str(letter.position),
            types.get(letter.position, NOT_STORED),
            letter.reason,
            str(letter.status or "none"),
            str(letter.attempts),
        )
        for letter in letters
    ]


def _types(records: DeliveryAdmin, positions: Sequence[int], url: InboxUrl) -> Mapping[int, str]:
    """Return the type of each event that is still stored, by position."""
    with closing(engines.open_log(url)) as log:
        stored = {record.position: record.event.type for record in log.at(positions)}
    return {position: event.type for position, event in records.saved(positions).items()} | stored
