"""`relay`: deliver what is kept."""

import os
import random
import signal
import sys
import threading
import time
from contextlib import suppress
from pathlib import Path

import click

from service import __version__, logs, metrics, tracing
from service.admin import AdminServer, MetricsPage
from service.app import create_admin
from service.cli.listening import listen
from service.cli.settings import configured
from service.config import Config
from service.errors import ConfigurationError, InboxUnavailable
from service.inbox import engine
from service.relay import stores
from service.relay.book import Book
from service.relay.relay import Relay
from service.relay.shown import Shown


@click.command()
def relay() -> None:
    """Deliver kept events to the destinations of WEBHOOK_DESTINATIONS, until told to stop (SIGTERM, or Ctrl-C).

    Reads the inbox of `serve` and never writes it; what was tried is remembered in `relay.db` beside it. Probes and
    metrics are on WEBHOOK_RELAY_BIND.
    """
    config = configured(os.environ)
    if not config.destinations:
        raise ConfigurationError(["WEBHOOK_DESTINATIONS wants the path of a file: there is nobody to deliver to."])
    stores.require_log(config.inbox)
    logs.configure(level=config.log_level, form=config.log_format, stream=sys.stdout)
    _serve(config)


def _serve(config: Config) -> None:
    over = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: over.set())
    measured, registry = metrics.for_relay()
    traced = tracing.from_environ(os.environ, version=__version__)
    # A scrape must not wait for the relay, nor the relay for a scrape.
    store, beside = stores.opened(config.inbox), stores.opened(config.inbox)
    running = Relay(
        Book(Path(config.destinations)),
        store.work,
        lambda: engine.load(config.inbox).open_log(store.url()),
        metrics=measured,
        traced=traced,
        now=time.time,
        chance=random.random,
        retention=config.retention,
    )
    checks = {"inbox": running.trouble, "destinations": running.unread}
    shown = Shown(beside.records, running.breakers, checks, measured, now=time.time)

    def refresh() -> None:
        with suppress(InboxUnavailable):  # what is shown says so
            beside.work.require_file()
        shown.refresh()

    listener = listen("WEBHOOK_RELAY_BIND", config.relay_bind)
    admin = AdminServer(create_admin(checks, MetricsPage(registry, refresh)), listener)
    logs.get("relay").info("starting", version=__version__, inbox=str(config.inbox))
    admin.start()
    running.start()
    over.wait()
    logs.get("relay").info("stopping")
    running.stop()
    admin.stop()
    for each in (store, beside):
        each.close()
    traced.close()
