"""`drain`: have this instance leave the traffic."""

import os
import time

import click

from service.cli.load_config import configured
from service.receiver import drain_mark as mark


@click.command(short_help="Tell the server to drain before it is stopped.")
@click.option("--seconds", type=click.FloatRange(0, 600), default=15, show_default=True, help="How long to wait.")
def drain(seconds: float) -> None:
    """Tell the server of this machine or pod to drain, then wait; made for a preStop hook.

    From then on /readyz fails and every answer closes its connection, so that clients and proxies go elsewhere
    before the server stops. Nothing is refused meanwhile.
    """
    config = configured(os.environ)
    try:
        mark.mark(config.run_dir)
    except OSError as ex:
        raise click.ClickException(
            f"no server can be told by {config.run_dir}: {ex.strerror}. Is WEBHOOK_RUN_DIR right, and does one run?"
        ) from ex
    click.echo(f"Draining; waiting {seconds:g} seconds.")
    time.sleep(seconds)
