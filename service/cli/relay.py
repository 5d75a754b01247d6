"""`relay`: deliver what is kept."""

import os
import signal
import sys
from typing import Final

import click

from service import __version__
from service.cli.bind_listener import listen
from service.cli.load_config import configured
from service.errors import ConfigurationError
from service.foreign_environment import Ignored
from service.relay.lifecycle import running
from service.storage import engines
from service.telemetry import logs

ENDING_SIGNALS: Final = (signal.SIGTERM, signal.SIGINT)
IGNORED_SIGNALS: Final = (signal.SIGHUP, signal.SIGTTIN, signal.SIGTTOU, signal.SIGUSR2, signal.SIGWINCH)


@click.command(short_help="Deliver stored events to the destinations.")
@click.pass_obj
def relay(ignored: Ignored) -> None:
    """Deliver kept events to the destinations of WEBHOOK_DESTINATIONS, until told to stop (SIGTERM, or Ctrl-C).

    Reads the inbox of `serve` and never writes it; what was tried is remembered in `relay.db` beside it. Probes and
    metrics are on WEBHOOK_RELAY_BIND.
    """
    config = configured(os.environ)
    if not config.destinations:
        raise ConfigurationError(["WEBHOOK_DESTINATIONS wants the path of a file: there is nobody to deliver to."])
    engines.deliveries(config.inbox)
    logs.configure(level=config.log_level, form=config.log_format, stream=sys.stdout)
    if told := ignored.descriptions():
        logs.get("relay").warning("environment variables ignored", problems=told)
    if problems := ignored.problems():
        logs.get("relay").error("tracing is off", problems=problems)
    signal.pthread_sigmask(signal.SIG_BLOCK, (*ENDING_SIGNALS, *IGNORED_SIGNALS))  # in every thread started from here
    listener = listen("WEBHOOK_RELAY_BIND", config.relay_bind)
    with running(config, os.environ, version=__version__, listener=listener):
        _wait_for_the_end()


def _wait_for_the_end() -> None:
    """Wait for a signal that ends; log the others.

    They are blocked and fetched: a handler runs in the main thread, which may be kept from waking for ever when it
    waits for a lock as the signal comes, and may hold that very lock.
    """
    while (number := signal.sigwait((*ENDING_SIGNALS, *IGNORED_SIGNALS))) not in ENDING_SIGNALS:
        logs.get("relay").info("signal ignored", signal=signal.Signals(number).name)
