"""Starts the parts of the relay in order, and stops them in reverse."""

import socket
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

from service.admin.app import create_admin
from service.admin.listener import AdminServer
from service.admin.metrics_page import MetricsPage
from service.config import Config
from service.errors import InboxUnavailable
from service.instruments import Instruments
from service.relay.destination_registry import DestinationRegistry
from service.relay.gauges import RelayGauges
from service.relay.loop import Relay, use_idle_scheduling
from service.storage import engines
from service.telemetry import logs, metrics, tracing


@contextmanager
def running(config: Config, environ: Mapping[str, str], *, version: str, listener: socket.socket) -> Iterator[None]:
    """Deliver, and serve the admin *listener*, until the block exits; raises InboxUnavailable if it can't start.

    On exit, running attempts are finished first, then the admin listener stops: it reports until then.
    """
    log = logs.get("relay")
    relay_metrics, registry = metrics.for_relay()
    with ExitStack() as stack:
        traced = tracing.from_environ(
            environ, version=version, report=lambda problems: log.error("tracing is off", problems=problems)
        )
        stack.callback(traced.close)
        instruments = Instruments(metrics=relay_metrics, tracing=traced)
        stored = engines.deliveries(config.inbox)
        deliveries = stored.open(config.inbox)
        stack.callback(deliveries.close)
        reported = stored.open(config.inbox)  # a separate handle: a scrape and the relay never wait for each other
        stack.callback(reported.close)
        relay = Relay(
            DestinationRegistry(Path(config.destinations)),
            deliveries.work,
            lambda: engines.open_log(deliveries.url()),
            instruments=instruments,
            retention_ms=int(config.retention * 1000),
            prepare=use_idle_scheduling,
        )
        checks = {"inbox": relay.inbox_problem, "destinations": relay.destinations_problem}
        gauges = RelayGauges(reported.records, relay, checks, instruments)

        def refresh() -> None:
            with suppress(InboxUnavailable):  # the check `inbox` reports it
                reported.work.require_file()
            gauges.refresh()

        admin = AdminServer(create_admin(checks, MetricsPage(registry, refresh)), listener)
        log.info("starting", version=version, inbox=str(config.inbox))
        admin.start()
        stack.callback(admin.stop)
        relay.start()
        stack.callback(relay.stop)
        yield
        log.info("stopping")
