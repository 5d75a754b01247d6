"""`relay`: deliver what is kept."""

import os
import random
import signal
import sys
import time
from contextlib import suppress
from pathlib import Path
from typing import Final

import click

from service import __version__
from service.admin.app import create_admin
from service.admin.listener import AdminServer
from service.admin.metrics_page import MetricsPage
from service.cli.bind_listener import listen
from service.cli.load_config import configured
from service.config import Config
from service.errors import ConfigurationError, InboxUnavailable
from service.foreign_environment import Ignored
from service.relay.destination_registry import DestinationRegistry
from service.relay.gauges import RelayGauges
from service.relay.loop import Relay, give_way
from service.storage import engines
from service.telemetry import logs, metrics, tracing

ENDING_SIGNALS: Final = (signal.SIGTERM, signal.SIGINT)
IGNORED_SIGNALS: Final = (signal.SIGHUP, signal.SIGTTIN, signal.SIGTTOU, signal.SIGUSR2, signal.SIGWINCH)
TRACING_OFF: Final = "tracing is off"


@click.command()
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
    if told := ignored.told():
        logs.get("relay").warning("environment variables ignored", problems=told)
    if problems := ignored.problems():
        logs.get("relay").error("tracing is off", problems=problems)
    _serve(config)


def _wait_for_the_end() -> None:
    """Wait for a signal that ends; log the others.

    They are blocked and fetched: a handler runs in the main thread, which may be kept from waking for ever when it
    waits for a lock as the signal comes, and may hold that very lock.
    """
    while (number := signal.sigwait((*ENDING_SIGNALS, *IGNORED_SIGNALS))) not in ENDING_SIGNALS:
        logs.get("relay").info("signal ignored", signal=signal.Signals(number).name)


def _serve(config: Config) -> None:
    signal.pthread_sigmask(signal.SIG_BLOCK, (*ENDING_SIGNALS, *IGNORED_SIGNALS))  # in every thread started from here
    measured, registry = metrics.for_relay()
    log = logs.get("relay")
    traced = tracing.from_environ(
        os.environ, version=__version__, report=lambda told: log.error(TRACING_OFF, problems=told)
    )
    # A scrape must not wait for the relay, nor the relay for a scrape.
    stored = engines.deliveries(config.inbox)
    store, beside = stored.open(config.inbox), stored.open(config.inbox)
    running = Relay(
        DestinationRegistry(Path(config.destinations)),
        store.work,
        lambda: engines.open_log(store.url()),
        metrics=measured,
        traced=traced,
        now=time.time,
        chance=random.random,
        retention=config.retention,
        prepare=give_way,
    )
    checks = {"inbox": running.trouble, "destinations": running.unread}
    shown = RelayGauges(beside.records, running.breakers, checks, measured, now=time.time)

    def refresh() -> None:
        with suppress(InboxUnavailable):  # what is shown says so
            beside.work.require_file()
        shown.refresh()

    listener = listen("WEBHOOK_RELAY_BIND", config.relay_bind)
    admin = AdminServer(create_admin(checks, MetricsPage(registry, refresh)), listener)
    logs.get("relay").info("starting", version=__version__, inbox=str(config.inbox))
    admin.start()
    running.start()
    _wait_for_the_end()
    logs.get("relay").info("stopping")
    running.stop()
    admin.stop()
    for each in (store, beside):
        each.close()
    traced.close()
