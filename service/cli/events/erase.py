"""`events erase`: erase one person's events."""

from collections.abc import Sequence

import click

from service.cli import delivery_store
from service.cli.events import filters
from service.cli.shared_options import dry_run_option, yes_option
from service.storage import engines

NOT_ERASED = """This command does not erase the following; do it yourself if it is required:
  - events that destinations have already received, and what their applications store;
  - backups and snapshots of the volume;
  - other people's events whose text or contacts name this person;
  - logs and traces: they contain keyed hashes of the number, no number and no text.
If Meta sends an erased event again, it is recognized as a duplicate and not stored."""

_WAL_NOT_CLEAN = (
    "{}, but the write-ahead log (the -wal file of the inbox or of relay.db) still contains their data, "
    "because another process was reading it. Run the same command again."
)


@click.command(short_help="Erase one person's events.")
@filters.inbox_option
@click.option("--subject", metavar="PERSON", required=True, help="A phone number with country code, or a user id.")
@dry_run_option
@yes_option
def erase(inbox: str | None, subject: str, *, dry_run: bool, yes: bool) -> None:
    """Erase one person's events: messages in both directions, pending deliveries and dead letters.

    A person can have a phone number and a user id: erase both. The receiver can keep running meanwhile. Erased events
    cannot be restored.

    \b
    whatsapp-webhook events erase --subject 16505551234 --dry-run
    whatsapp-webhook events erase --subject 16505551234
    """  # noqa: D301  click requires the character
    url = filters.inbox_of(inbox)
    with engines.load(url).open_erasure(url) as erasure:
        person = subject.removeprefix("+")
        with delivery_store.opened_if_any(url) as records:
            saved = records.positions_of(person) if records else ()
            positions = sorted({*erasure.find(person), *saved})
            if dry_run:
                click.echo(f"Would erase {_counted(positions)}.")
                return
            is_clean = records.erase(()) if records and not positions else True
        if not positions:
            if not (erasure.erase(()) and is_clean):
                raise click.ClickException(_WAL_NOT_CLEAN.format("No event of this person is stored any more"))
            click.echo("There is no event of this person (any more).")
            return
        if not yes:
            click.confirm(f"Erase {_counted(positions)} permanently?", abort=True)
        with delivery_store.opened_if_any(url) as records:
            is_clean = records.erase(positions) if records else True
        is_clean = erasure.erase(positions) and is_clean
        remains = erasure.remains()
    if not is_clean:
        raise click.ClickException(_WAL_NOT_CLEAN.format(f"Erased {_counted(positions)}"))
    click.echo(f"Erased {_counted(positions)}.")
    if remains:
        click.echo(f"Not erased yet: {remains}")
    click.echo(NOT_ERASED)


def _counted(positions: Sequence[int]) -> str:
    return "1 event" if len(positions) == 1 else f"{len(positions)} events"
