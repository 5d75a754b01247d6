"""`events`: list, show, replay, drop and erase stored events."""

import signal

import click

from service.cli.events.dead_letters import dead_letters, drop
from service.cli.events.erase import erase
from service.cli.events.list_show import list_, show
from service.cli.events.replay import replay


@click.group(short_help="List, show, replay and erase stored events.")
def events() -> None:
    """List and show stored events, deliver them again, or erase them. The receiver can keep running meanwhile.

    \b
    whatsapp-webhook events list
    """  # noqa: D301  click requires the character
    signal.signal(signal.SIGPIPE, signal.SIG_DFL)  # a reader such as `head` may close the pipe


for command in (list_, show, dead_letters, replay, drop, erase):
    events.add_command(command)
