"""`relay`: deliver stored events."""

import os
import signal
import sys
from typing import Final

import click

from service import __version__
from service.cli.bind_listener import listen
from service.cli.load_config import configured
from service.cli.load_destinations import destinations_file
from service.foreign_environment import Ignored
from service.relay.lifecycle import running
from service.storage import engines
from service.telemetry import logs

SHUTDOWN_SIGNALS: Final = (signal.SIGTERM, signal.SIGINT)
IGNORED_SIGNALS: Final = (signal.SIGHUP, signal.SIGTTIN, signal.SIGTTOU, signal.SIGUSR2, signal.SIGWINCH)


@click.command(short_help="Deliver stored events to the destinations.")
@click.pass_obj
def relay(ignored: Ignored) -> None:
    """Deliver stored events to the destinations of WEBHOOK_DESTINATIONS. Runs until SIGTERM or Ctrl-C.

    Reads the inbox that `serve` writes, and never changes it. Pending deliveries and attempts are stored beside it:
    in the file `relay.db`, or in the same PostgreSQL database. Probes and metrics are served on WEBHOOK_RELAY_BIND.

    \b
    WEBHOOK_DESTINATIONS=/etc/whatsapp-webhook/destinations.yaml \\
      whatsapp-webhook relay
    """  # noqa: D301  click requires the character
    config = configured(os.environ)
    destinations_file(os.environ)
    engines.deliveries(config.inbox)
    logs.configure(level=config.log_level, form=config.log_format, stream=sys.stdout)
    if overridden := ignored.descriptions():
        logs.get("relay").warning("environment variables ignored", problems=overridden)
    if problems := ignored.problems():
        logs.get("relay").error("tracing is off", problems=problems)
    signal.pthread_sigmask(
        signal.SIG_BLOCK, (*SHUTDOWN_SIGNALS, *IGNORED_SIGNALS)
    )  # inherited by every thread that is started below
    listener = listen("WEBHOOK_RELAY_BIND", config.relay_bind)
    with running(config, os.environ, version=__version__, listener=listener):
        _wait_for_shutdown()


def _wait_for_shutdown() -> None:
    """Wait for SIGTERM or SIGINT; log other signals.

    The signals are blocked and waited for. A handler would run in the main thread, which may wait for a lock forever
    at that moment, or hold the lock that the handler needs.
    """
    while (number := signal.sigwait((*SHUTDOWN_SIGNALS, *IGNORED_SIGNALS))) not in SHUTDOWN_SIGNALS:
        logs.get("relay").info("signal ignored", signal=signal.Signals(number).name)
