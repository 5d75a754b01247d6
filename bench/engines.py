"""Measures the CPU cost of a notification with each engine, relative to SQLite in the same run; see `make bench`.

Each service has one worker, and the servers of one engine at a time run on this machine. The cost is the CPU time of
the service's process tree per request, as in receiver.py; the engine's servers are not included. Kafka is measured if
TEST_KAFKA names a program that starts it.
"""

import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import AbstractContextManager, ExitStack, closing
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent.parent))
from receiver import COUNT, ROUNDS, batches, cpu, free_port, memory, percentile, send, serving, settings

from service.config import InboxUrl, inbox_url
from service.events import parse
from service.meta import catalogue
from service.storage import engines
from service.storage.deliveries import Attempt, Delivery, DeliveryState, QueueKind, Ruling, Settlement, Verdict
from service.storage.protocols import Terms
from service.storage.sqlite import SqliteInbox
from tests.support.servers import kafka
from tests.support.servers.kafka import Kafka
from tests.support.servers.nats import Nats
from tests.support.servers.postgresql import Postgresql

GOALS = {"postgresql": 1.15, "kafka": 1.5}
NOW = 1_795_000_000_000
CLAIMS = 300
OVERWRITTEN_EVENTS, EVENTS_PER_COMMIT = 8_000, 8
FEW_PENDING, MANY_PENDING = 1_000, 1_000_000


SERVERS: dict[str, Callable[[], tuple[AbstractContextManager[Any], Callable[[Any], str]]]] = {
    "postgresql": lambda: (Postgresql(), Postgresql.new_database),
    "nats": lambda: (Nats(), Nats.new_stream),
    "kafka": lambda: (Kafka(), Kafka.new_topic),
}


def compare(directory: Path, engine: str, url: str) -> None:
    """Send the same load alternately to a service on SQLite and to one on the engine, and print the results."""
    with ExitStack() as stack:
        services = {}
        for name, more in {"sqlite": {}, engine: {"WEBHOOK_INBOX": url}}.items():
            port = free_port()
            command = [sys.executable, "-m", "service", "serve"]
            services[name] = (port, stack.enter_context(serving(command, settings(directory, port, **more), port)))
        costs: dict[str, list[float]] = {name: [] for name in services}
        rates: dict[str, list[float]] = {name: [] for name in services}
        p99s: dict[str, list[float]] = {name: [] for name in services}
        for number in range(ROUNDS + 1):
            for name, (port, process) in services.items():
                before = cpu(process)
                result = send(port, COUNT)
                if number:  # the first round warms up
                    costs[name].append((cpu(process) - before) / COUNT * 1e6)
                    rates[name].append(COUNT / result["seconds"])
                    p99s[name].append(percentile(result["latencies"], 99))
        for name, (port, process) in services.items():
            ratio = statistics.median(y / x for x, y in zip(costs["sqlite"], costs[name], strict=True))
            goal = f" (goal {GOALS[name]})" if name in GOALS else ""
            print(
                f"  {name:10} {statistics.median(costs[name]):5.0f} us CPU per request, {ratio:.2f} x SQLite{goal}; "
                f"{statistics.median(rates[name]):5.0f} requests/s, p99 {statistics.median(p99s[name]):5.1f} ms; "
                f"batches of 1000: {batches(port):6.0f} events/s; {memory(process):.0f} MiB"
            )


def claim_seconds(url: InboxUrl, number: int) -> float:
    """Return the median time of a claim and its settlement, with so many pending deliveries."""
    database = engines.deliveries(url).open(url)
    work: DeliveryState = database.work
    work.join({"bot": 0}, now=NOW)
    for start in range(0, number, 50_000):
        until = min(start + 50_000, number)
        work.plan(
            "bot", start, until, [Delivery(at, f"queue {at}", NOW) for at in range(start + 1, until + 1)], now=NOW
        )
    attempt, ruling = Attempt(NOW, 0.001, 200, "delivered"), Ruling(Verdict.DELIVERED)
    durations = []
    for _ in range(CLAIMS):
        started = time.perf_counter()
        (claim,) = work.claim("bot", 1, QueueKind.HEALTHY, now=NOW, lease=60_000)
        work.settle([Settlement(claim, attempt, ruling)])
        durations.append(time.perf_counter() - started)
    database.close()
    return statistics.median(durations)


def secure_delete_ratios(directory: Path) -> tuple[float, float]:
    """Return the CPU cost of SQLite's secure_delete, as a ratio for storing and one for purging."""
    costs: dict[bool, list[tuple[float, float]]] = {True: [], False: []}
    for number in range(2 * ROUNDS):
        overwrites = bool(number % 2)
        with closing(SqliteInbox(directory / f"{number}.db", Terms(1, 1))) as inbox:
            inbox._db.pragma("secure_delete", overwrites)  # noqa: SLF001  there is no setting for it
            events = [
                event
                for _ in range(OVERWRITTEN_EVENTS)
                for event in parse(catalogue.notification("message text"), received_at=NOW, nonce="")
            ]
            started = time.process_time()
            for start in range(0, OVERWRITTEN_EVENTS, EVENTS_PER_COMMIT):
                inbox.put(events[start : start + EVENTS_PER_COMMIT])
            stored = time.process_time()
            while inbox.purge(2 * NOW):
                pass
            costs[overwrites].append((stored - started, time.process_time() - stored))
    pairs = list(zip(costs[True], costs[False], strict=True))
    storing, purging = (statistics.median(on[at] / off[at] for on, off in pairs) for at in range(2))
    return storing, purging


def main() -> None:
    """Measure everything, and print the results."""
    with tempfile.TemporaryDirectory(dir=os.environ.get("BENCH_DIR")) as temporary:
        storing, purging = secure_delete_ratios(Path(temporary))
    print(
        f"SQLite with secure_delete: storing takes {storing:.2f} x and purging {purging:.2f} x the CPU without it; "
        f"{ROUNDS} pairs of {OVERWRITTEN_EVENTS} events, {EVENTS_PER_COMMIT} per commit"
    )
    print(f"CPU of the service only; {ROUNDS} rounds of {COUNT} notifications of 500 bytes on 16 connections:")
    for name, start in SERVERS.items():
        if name == "kafka" and not kafka.program():
            print("  kafka      not measured: set TEST_KAFKA to a program that starts it")
            continue
        server, place = start()
        with tempfile.TemporaryDirectory(dir=os.environ.get("BENCH_DIR")) as temporary, server as running:
            compare(Path(temporary), name, place(running))
    with Postgresql() as server:
        few, many = (claim_seconds(inbox_url(server.new_database()), number) for number in (FEW_PENDING, MANY_PENDING))
        print(
            f"PostgreSQL: a claim and its settlement take {few * 1e6:.0f} us with {FEW_PENDING} pending deliveries, "
            f"{many * 1e6:.0f} us with {MANY_PENDING}: ratio {many / few:.2f} (constant time is 1)"
        )


if __name__ == "__main__":
    main()
