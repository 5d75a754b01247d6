"""`events erase`: erase one person's events."""

from collections.abc import Collection, Iterable, Sequence

import click

from service.cli import delivery_store
from service.cli.events import filters
from service.cli.shared_options import dry_run_option, yes_option
from service.config import InboxUrl
from service.storage import engines, people
from service.storage.deliveries import DeliveryAdmin
from service.storage.people import Appearance, PersonEvents
from service.storage.protocols import Erasure

NOT_ERASED = """This command does not erase the following; do it yourself if it is required:
  - events that destinations have already received, and what their applications store;
  - backups and snapshots of the volume;
  - other people's events whose text or contacts name this person;
  - logs and traces: they contain keyed hashes of event ids, no number and no text.
If Meta sends an erased event again, it is recognized as a duplicate and not stored."""

_WAL_NOT_CLEAN = (
    "{}, but the write-ahead log (the -wal file of the inbox or of relay.db) still contains their data, "
    "because another process was reading it. Run the same command again."
)


@click.command(short_help="Erase one person's events.")
@filters.inbox_option
@click.option("--subject", metavar="PERSON", required=True, help="A phone number with country code, or a user id.")
@click.option(
    "--include-reassigned",
    is_flag=True,
    help="Also erase events of the person's numbers from the time when these belonged to somebody else.",
)
@dry_run_option
@yes_option
def erase(inbox: str | None, subject: str, *, include_reassigned: bool, dry_run: bool, yes: bool) -> None:
    """Erase one person's events: messages in both directions, the person's identifiers, and pending deliveries.

    A person can have several numbers and user ids over time. Give one of them: the stored events tell the others. If a
    number belonged to several people one after the other, it means the first of them; --dry-run shows how many events
    are left out. Give a user id to mean somebody else.
    The receiver can keep running meanwhile. Erased events cannot be restored.

    \b
    whatsapp-webhook events erase --subject 16505551234 --dry-run
    whatsapp-webhook events erase --subject 16505551234
    """  # noqa: D301  click requires the character
    url = filters.inbox_of(inbox)
    with engines.load(url).open_erasure(url) as erasure:
        with delivery_store.opened_if_any(url) as records:
            found = _find(subject, erasure, records)
        positions = sorted({*found.own, *(found.reassigned if include_reassigned else ())})
        if dry_run:
            _print_person(found)
            click.echo(f"Would erase {_counted(positions)}.")
            return
        if positions and not yes:
            _print_person(found)
            click.confirm(f"Erase {_counted(positions)} permanently?", abort=True)
        is_clean = _erase(url, erasure, positions, found.person.identifiers)
        remains = erasure.remains()
    done = f"Erased {_counted(positions)}" if positions else "No event of this person is stored any more"
    if not is_clean:
        raise click.ClickException(_WAL_NOT_CLEAN.format(done))
    if not positions:
        click.echo("There is no event of this person (any more).")
        return
    click.echo(f"{done}.")
    if remains:
        click.echo(f"Not erased yet: {remains}")
    click.echo(NOT_ERASED)


def _find(subject: str, erasure: Erasure, records: DeliveryAdmin | None) -> PersonEvents:
    """Return a person's events, in the log and in the relay's state."""

    def look_up(identifiers: Collection[str]) -> Iterable[Appearance]:
        yield from erasure.appearances(identifiers)
        yield from records.appearances(identifiers) if records else ()

    return people.find(subject, look_up)


def _erase(url: InboxUrl, erasure: Erasure, positions: Sequence[int], identifiers: Collection[str]) -> bool:
    """Erase events and identifiers; return False if a write-ahead log still has them. Without events, retry that."""
    with delivery_store.opened_if_any(url) as records:
        is_clean = records.erase(positions, identifiers) if records else True
    return erasure.erase(positions) and is_clean


def _print_person(found: PersonEvents) -> None:
    """Print the identifiers that were followed, since when and until when, and how many events are left out."""
    for userid in sorted(found.person.userids):
        click.echo(f"user id  {userid}")
    for number, intervals in sorted(found.person.numbers.items()):
        for first, end in intervals:
            since = f"from position {first}" if first else "from the beginning"
            until = f"to position {end - 1}" if end != people.END else "until now"
            click.echo(f"number   {number}  {since} {until}")
    if found.reassigned:
        click.echo(
            f"{_counted(found.reassigned)} of these numbers, when they were not this person's: erased only with "
            "--include-reassigned."
        )


def _counted(positions: Sequence[int]) -> str:
    return "1 event" if len(positions) == 1 else f"{len(positions)} events"
