"""The command line: one module a command, the help in its docstring."""

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
LOGGING: Final = ("serve", "relay")  # these warn in their log


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(__version__, prog_name="whatsapp-webhook")
@click.pass_context
def commands(context: click.Context) -> None:
    """Receive WhatsApp's webhook notifications, keep every event, then say 200.

    Configuration comes from WEBHOOK_* environment variables: `whatsapp-webhook check` looks at all of them at once.

    Exit status: 0 if all is well; 1 if it is not, or something failed that may work later; 2 if the command line or
    the configuration must be changed first.
    """
    if context.invoked_subcommand in LOGGING:
        return
    terminal_escapes.guard()
    if told := context.obj.descriptions():
        click.echo(f"warning: these environment variables are not followed: {', '.join(told)}.", err=True)


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

    What a user can cause ends in a sentence and a status, never in a traceback.
    """
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")  # names at Meta are in any script
    try:
        commands.main(prog_name="whatsapp-webhook", standalone_mode=False, obj=ignored)
    except click.Abort:
        click.echo("Aborted.", err=True)
        sys.exit(1)
    except click.ClickException as ex:
        ex.show()
        sys.exit(ex.exit_code)
    except ConfigurationError as ex:
        click.echo("The configuration cannot be used:", err=True)
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
