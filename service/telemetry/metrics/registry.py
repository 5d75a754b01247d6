"""The registries of metrics.

With one worker, the values are in its process. With several, each worker writes files named after its slot (not its
process id), so that a new worker in the slot continues the counters of a dead one.
"""

import os
import re
import struct
import time
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from typing import Final, TypeAlias, cast

import prometheus_client
from prometheus_client import CollectorRegistry, Gauge, Metric, ProcessCollector, multiprocess, values
from prometheus_client.registry import Collector

from service.telemetry.metrics.receiver import (
    METRIC_PREFIX,
    CredentialMetrics,
    HttpMetrics,
    InboxMetrics,
    WebhookMetrics,
)
from service.telemetry.metrics.relay import RelayMetrics

MAX_READS: Final = 10
_FILE: Final = re.compile(r"(counter|summary|histogram|gauge_[a-z]+)_w[0-9]+\.db")  # as prometheus_client names them


class Metrics:
    """All metrics of a receiver process."""

    def __init__(self, registry: CollectorRegistry | None, *, version: str, engine: str, weak: bool) -> None:
        """Register in *registry*; None if the values are in the files of `of_slot`."""
        prometheus_client.disable_created_metrics()
        self.http = HttpMetrics(registry)
        self.webhook = WebhookMetrics(registry)
        self.credentials = CredentialMetrics(registry)
        self.inbox = InboxMetrics(registry, engine, weak=weak)
        build = Gauge(
            METRIC_PREFIX + "build_info",
            "Always 1; the labels have the version and the engine.",
            ("version", "engine"),
            registry=registry,
            multiprocess_mode="livemax",
        )
        build.labels(version, engine).set(1)


Measured: TypeAlias = tuple[Metrics, CollectorRegistry]


def of_one_process(*, version: str, engine: str, weak: bool) -> Measured:
    """Create the metrics of a receiver with one worker, and the registry to scrape."""
    registry = CollectorRegistry()
    ProcessCollector(registry=registry)
    return Metrics(registry, version=version, engine=engine, weak=weak), registry


def for_relay() -> tuple[RelayMetrics, CollectorRegistry]:
    """Create the metrics of a relay, and the registry to scrape."""
    prometheus_client.disable_created_metrics()
    registry = CollectorRegistry()
    ProcessCollector(registry=registry)
    return RelayMetrics(registry), registry


class _Sum(Collector):
    """Sums the files of all workers; retries if one is incomplete because it is being created."""

    def __init__(self, directory: Path) -> None:
        self._files = multiprocess.MultiProcessCollector(None, path=str(directory))

    def collect(self) -> Iterable[Metric]:
        """Read the files; raise struct.error if one stays unreadable."""
        for _ in range(MAX_READS):
            with suppress(struct.error, RuntimeError):
                return cast("Iterable[Metric]", self._files.collect())
            time.sleep(0.02)
        return cast("Iterable[Metric]", self._files.collect())


def of_slot(directory: Path, slot: int, *, version: str, engine: str, weak: bool) -> Measured:
    """Create the metrics of one of several workers, and a registry with the sums of all workers.

    Call it in the worker, before any other metric is created there.
    """
    os.environ["PROMETHEUS_MULTIPROC_DIR"] = str(directory)
    values.ValueClass = values.MultiProcessValue(lambda: _name(slot))
    registry = CollectorRegistry()
    registry.register(_Sum(directory))
    return Metrics(None, version=version, engine=engine, weak=weak), registry


def forget_files(directory: Path) -> None:
    """Delete the metrics files of an earlier start, and no other files."""
    if directory.is_symlink():
        directory.unlink()
    directory.mkdir(parents=True, exist_ok=True)
    for file in directory.iterdir():
        if _FILE.fullmatch(file.name):
            file.unlink(missing_ok=True)


def forget_gauges(directory: Path, slot: int) -> None:
    """Delete the gauges of a worker that exited; its counters stay."""
    multiprocess.mark_process_dead(_name(slot), path=str(directory))


def _name(slot: int) -> str:
    return f"w{slot}"
