"""`events forget`: erase one person's events."""

import click

from service.cli import state
from service.cli.events import chosen
from service.inbox import engine

OUT_OF_REACH = """Out of reach from here, for you to see to:
  - what destinations got already, and what their applications keep of it;
  - backups and snapshots of the volume;
  - events of others that name this person in their text or contacts;
  - logs and traces: they hold neither number nor text, but keyed hashes of the number.
What Meta sends again of what was erased is told as a repeat, and not kept."""


@click.command()
@chosen.inbox_option
@click.option("--subject", metavar="WHO", required=True, help="The number as Meta writes it, or a user id.")
@click.option("--yes", is_flag=True, help="Do not ask.")
def forget(inbox: str | None, subject: str, *, yes: bool) -> None:
    """Erase one person's events: what they and you wrote, their number, and what is still to be delivered of it.

    Somebody may be known by a number and by a user id: erase both. The server may go on meanwhile.

    \b
    whatsapp-webhook events forget --subject 16505551234
    """  # noqa: D301  click wants the character
    url = chosen.where(inbox)
    with engine.load(url).open_erasure(url) as erasure:
        positions = erasure.find(subject.removeprefix("+"))
        if not positions:
            click.echo("There is no event of this subject (any more).")
            return
        if not yes:
            click.confirm(f"Erase {len(positions)} events for good?", abort=True)
        with state.opened_if_any(url) as records:
            is_clean = records.forget(positions) if records else True
        is_clean = erasure.erase(positions) and is_clean
    click.echo(f"{len(positions)} events are erased.")
    if not is_clean:
        click.echo(
            "A reader was in the way: old pages go from the -wal file with the next checkpoint; or call this again."
        )
    click.echo(OUT_OF_REACH)
