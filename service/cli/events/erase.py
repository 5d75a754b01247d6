"""`events erase`: erase one person's events."""

import click

from service.cli import delivery_store
from service.cli.events import filters
from service.cli.shared_options import dry_run_option, yes_option
from service.storage import engines

OUT_OF_REACH = """Out of reach from here, for you to see to:
  - what destinations got already, and what their applications keep of it;
  - backups and snapshots of the volume;
  - events of others that name this person in their text or contacts;
  - logs and traces: they hold neither number nor text, but keyed hashes of the number.
What Meta sends again of what was erased is told as a repeat, and not kept."""


_STILL_READ = (
    "{}, but the write-ahead log (the -wal file of the inbox, or of relay.db) still holds their text, "
    "because another process was reading it. Run the same command again."
)


@click.command(short_help="Erase one person's events.")
@filters.inbox_option
@click.option("--subject", metavar="WHO", required=True, help="The number as Meta writes it, or a user id.")
@dry_run_option
@yes_option
def erase(inbox: str | None, subject: str, *, dry_run: bool, yes: bool) -> None:
    """Erase one person's events: what they and you wrote, their number, and what is still to be delivered of it.

    Somebody may be known by a number and by a user id: erase both. The server may go on meanwhile.

    \b
    whatsapp-webhook events erase --subject 16505551234
    """  # noqa: D301  click wants the character
    url = filters.inbox_of(inbox)
    with engines.load(url).open_erasure(url) as erasure:
        person = subject.removeprefix("+")
        with delivery_store.opened_if_any(url) as records:
            kept = records.positions_of(person) if records else ()
            positions = sorted({*erasure.find(person), *kept})
            if dry_run:
                click.echo(f"Would erase {len(positions)} events.")
                return
            is_clean = records.erase(()) if records and not positions else True
        if not positions:
            if not (erasure.erase(()) and is_clean):
                raise click.ClickException(_STILL_READ.format("No event of this subject is stored any more"))
            click.echo("There is no event of this subject (any more).")
            return
        if not yes:
            click.confirm(f"Erase {len(positions)} events for good?", abort=True)
        with delivery_store.opened_if_any(url) as records:
            is_clean = records.erase(positions) if records else True
        is_clean = erasure.erase(positions) and is_clean
        remains = erasure.remains()
    if not is_clean:
        raise click.ClickException(_STILL_READ.format(f"{len(positions)} events are erased"))
    click.echo(f"{len(positions)} events are erased.")
    if remains:
        click.echo(f"What remains: {remains}")
    click.echo(OUT_OF_REACH)
