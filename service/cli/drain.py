"""`drain`: prepare a receiver for its shutdown."""

import os
import time

import click

from service.cli.load_config import configured
from service.receiver import drain_mark as mark


@click.command(short_help="Drain the receiver before it is stopped.")
@click.option(
    "--seconds",
    metavar="SECONDS",
    type=click.FloatRange(0, 600),
    default=15,
    show_default=True,
    help="How long the command waits after the drain has started.",
)
def drain(seconds: float) -> None:
    """Drain the receiver of this machine or pod, then wait. Made for a preStop hook.

    While the receiver drains, /readyz answers 503 and every response closes its connection, so that load balancers and
    clients use other instances before this one stops. Requests are still accepted. The drain ends only with a restart
    of the receiver, not when this command exits.

    \b
    whatsapp-webhook drain --seconds 20
    """  # noqa: D301  click requires the character
    config = configured(os.environ)
    try:
        mark.mark(config.run_dir)
    except OSError as ex:
        raise click.ClickException(
            f"The drain mark cannot be written to {config.run_dir}: {ex.strerror}. Check WEBHOOK_RUN_DIR, and that the "
            "receiver is running."
        ) from ex
    click.echo(f"Draining. Waiting {seconds:g} seconds.")
    time.sleep(seconds)
