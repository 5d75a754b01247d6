"""The command line: one module per command, with the help text in the docstring of its function."""

import io
import sys
from typing import Final, NoReturn

import click

from service import __version__
from service.cli import terminal_escapes
from service.cli.check import check
from service.cli.console import ended
from service.cli.destinations import destinations
from service.cli.doctor import doctor
from service.cli.drain import drain
from service.cli.events import events
from service.cli.meta import status, subscribe, unsubscribe
from service.cli.ready import ready
from service.cli.relay import relay
from service.cli.serve import serve
from service.cli.simulate import simulate
from service.errors import ConfigurationError, GraphRefused, InboxUnavailable
from service.foreign_environment import Ignored

NOTHING_IGNORED: Final = Ignored()
LOGGING_COMMANDS: Final = ("serve", "relay")  # they write the warning to their log


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(__version__, prog_name="whatsapp-webhook")
@click.pass_context
def commands(context: click.Context) -> None:
    """Receive WhatsApp webhook notifications, store every event, and deliver events to your applications.

    The configuration is read from environment variables, WEBHOOK_*. The command `check` reports every mistake in it.

    Exit status: 0 success; 1 a problem was found, or an operation failed and may succeed later; 2 the command line or
    the configuration is wrong.

    \b
    whatsapp-webhook serve                      start the receiver
    whatsapp-webhook events list --follow       watch events as they are stored
    whatsapp-webhook doctor                     find out why no events arrive
    """  # noqa: D301  click requires the character
    if context.invoked_subcommand in LOGGING_COMMANDS:
        return
    terminal_escapes.guard()
    if ignored := context.obj.descriptions():
        click.echo(f"warning: these environment variables are ignored: {', '.join(ignored)}.", err=True)


for command in (
    serve,
    relay,
    check,
    drain,
    ready,
    events,
    destinations,
    simulate,
    subscribe,
    unsubscribe,
    status,
    doctor,
):
    commands.add_command(command)


def main(ignored: Ignored = NOTHING_IGNORED) -> NoReturn:
    """Run the command line, and warn of environment variables that were *ignored*.

    Every error that a user can cause is printed as a sentence, without a traceback, and sets the exit status.
    """
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")  # a name from Meta may not fit the encoding
    try:
        commands.main(prog_name="whatsapp-webhook", standalone_mode=False, obj=ignored)
    except click.Abort:
        click.echo("Aborted.", err=True)
        sys.exit(1)
    except click.ClickException as ex:
        ex.show()
        sys.exit(ex.exit_code)
    except ConfigurationError as ex:
        click.echo("The configuration is not valid:", err=True)
        for problem in ex.problems:
            click.echo(f"  - {problem}", err=True)
        sys.exit(2)
    except GraphRefused as ex:
        click.echo(f"Error: {ended(ex.what)}\nOn whose side: {ex.side}. {ex.remedy}", err=True)
        sys.exit(1)
    except InboxUnavailable as ex:
        click.echo(f"Error: {ended(ex.detail)}", err=True)
        sys.exit(1)
    except OSError as ex:
        click.echo(f"Error: {ended(str(ex))}", err=True)
        sys.exit(1)
    sys.exit(0)
