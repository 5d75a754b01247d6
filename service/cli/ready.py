"""`ready`: print whether the receiver or the relay of this machine or pod is ready."""

import os

import click
import urllib3

from service import loopback
from service.cli.load_config import configured


@click.command(short_help="Check whether the receiver or the relay is ready.")
@click.option("--relay", is_flag=True, help="Check the relay instead of the receiver.")
def ready(*, relay: bool) -> None:
    """Print the answer of /readyz of the receiver (or the relay) on this machine or in this pod.

    Exits with status 0 if it is ready, and with status 1 if it is not ready or does not answer.

    \b
    whatsapp-webhook ready
    whatsapp-webhook ready --relay
    """  # noqa: D301  click requires the character
    config = configured(os.environ)
    address = loopback.reachable(config.relay_bind if relay else config.admin_bind)
    try:
        response = urllib3.request("GET", f"http://{address}/readyz", timeout=5, retries=False)
    except urllib3.exceptions.HTTPError as ex:
        raise click.ClickException(
            f"No answer from {address}: check that {'the relay' if relay else 'the receiver'} is running."
        ) from ex
    click.echo(response.data.decode(), nl=False)
    if response.status != 200:  # noqa: PLR2004
        raise SystemExit(1)
