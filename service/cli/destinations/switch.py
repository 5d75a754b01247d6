"""`destinations retry`, `enable` and `disable`."""

from typing import Final

import click

from service import clock
from service.cli import delivery_store
from service.cli.events import filters

BY_HAND: Final = "by hand"


@click.command(short_help="Attempt all pending deliveries of a destination now.")
@filters.inbox_option
@click.argument("name")
def retry(inbox: str | None, name: str) -> None:
    """Attempt all pending deliveries of a destination now, instead of after their backoff.

    Run it after you repaired the destination. Each running relay obeys within a second: a destination that is paused is
    attempted at once. The number of concurrent attempts starts at two and doubles with each success.

    \b
    whatsapp-webhook destinations retry bot
    """  # noqa: D301  click requires the character
    with delivery_store.opened(filters.inbox_of(inbox)) as records:
        status = delivery_store.status_of(records, name)
        if status.disabled is not None:
            raise click.ClickException(
                f"{name} is disabled: {status.disabled}. Run: whatsapp-webhook destinations enable {name}"
            )
        records.retry(name, now=clock.now_ms())
    click.echo(f"{name}: {status.backlog} pending deliveries are attempted now.")


@click.command(short_help="Deliver to a disabled destination again.")
@filters.inbox_option
@click.argument("name")
def enable(inbox: str | None, name: str) -> None:
    """Deliver to a disabled destination again, its pending events first and in order.

    They are attempted at once, as after `destinations retry`.

    \b
    whatsapp-webhook destinations enable bot
    """  # noqa: D301  click requires the character
    _switch(inbox, name, None)


@click.command(short_help="Stop delivering to a destination.")
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


def _switch(inbox: str | None, name: str, reason: str | None) -> None:
    with delivery_store.opened(filters.inbox_of(inbox)) as records:
        delivery_store.status_of(records, name)
        changed = records.disable(name, reason)
        if changed and reason is None:
            records.retry(name, now=clock.now_ms())
    word = "disabled" if reason else "enabled"
    click.echo(f"{name} is {word}." if changed else f"{name} is {word} already.")
