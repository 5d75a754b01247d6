"""`destinations`: list the relay's destinations, repair what fails, and drop the state of a removed relay."""

import click

from service.cli.destinations.apply_filter import apply_filter
from service.cli.destinations.drop_state import drop_state
from service.cli.destinations.list_state import list_
from service.cli.destinations.switch import disable, enable, retry


@click.group(short_help="List, retry, disable and enable the relay's destinations.")
def destinations() -> None:
    """List the destinations that the relay delivers to, retry pending deliveries, disable a destination or enable it.

    \b
    whatsapp-webhook destinations list
    """  # noqa: D301  click requires the character


for command in (list_, retry, enable, disable, apply_filter, drop_state):
    destinations.add_command(command)
