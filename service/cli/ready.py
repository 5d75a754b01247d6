"""`ready`: can the server of this machine or pod take notifications, and if not, why?"""

import os

import click
import urllib3

from service import loopback
from service.cli.load_config import configured


@click.command(short_help="Exit with status 0 if the server or relay is ready.")
@click.option("--relay", is_flag=True, help="Ask the relay instead.")
def ready(*, relay: bool) -> None:
    """Ask the server of this machine or pod what /readyz says."""
    config = configured(os.environ)
    address = loopback.reachable(config.relay_bind if relay else config.admin_bind)
    try:
        answer = urllib3.request("GET", f"http://{address}/readyz", timeout=5, retries=False)
    except urllib3.exceptions.HTTPError as ex:
        raise click.ClickException(f"nothing answers on {address}: does it run?") from ex
    click.echo(answer.data.decode(), nl=False)
    if answer.status != 200:  # noqa: PLR2004
        raise SystemExit(1)
