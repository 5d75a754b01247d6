"""`events`: look at what is kept, and do something about it."""

import signal

import click

from service.cli.events.dead_letters import dead_letters, replay
from service.cli.events.erase import erase
from service.cli.events.list_show import list_, show


@click.group(short_help="List, show, replay and erase stored events.")
def events() -> None:
    """Look at the events that are kept, while the server goes on writing, deliver them again, or erase them."""
    signal.signal(signal.SIGPIPE, signal.SIG_DFL)  # whoever reads may have enough, as head does


for command in (list_, show, dead_letters, replay, erase):
    events.add_command(command)
