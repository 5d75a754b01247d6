"""What a notification costs with each engine, compared with SQLite in one run; see `make bench`.

One worker each, one engine's servers on this machine at a time; judged is CPU of the service's process tree a request,
as in receiver.py, which does not hold what the servers take. Kafka is measured where TEST_KAFKA names a program that
starts one.
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
OVERWRITTEN, PER_COMMIT = 8_000, 8
FEW, MANY = 1_000, 1_000_000


SERVERS: dict[str, Callable[[], tuple[AbstractContextManager[Any], Callable[[Any], str]]]] = {
    "postgresql": lambda: (Postgresql(), Postgresql.new_database),
    "nats": lambda: (Nats(), Nats.new_stream),
    "kafka": lambda: (Kafka(), Kafka.new_topic),
}


def compare(directory: Path, engine: str, url: str) -> None:
    """Send the same to a service on SQLite and to one on the engine, by turns."""
    with ExitStack() as stack:
        started = {}
        for name, more in {"sqlite": {}, engine: {"WEBHOOK_INBOX": url}}.items():
            port = free_port()
            command = [sys.executable, "-m", "service", "serve"]
            started[name] = (port, stack.enter_context(serving(command, settings(directory, port, **more), port)))
        costs: dict[str, list[float]] = {name: [] for name in started}
        rates: dict[str, list[float]] = {name: [] for name in started}
        late: dict[str, list[float]] = {name: [] for name in started}
        for turn in range(ROUNDS + 1):
            for name, (port, process) in started.items():
                before = cpu(process)
                result = send(port, COUNT)
                if turn:  # the first warms up
                    costs[name].append((cpu(process) - before) / COUNT * 1e6)
                    rates[name].append(COUNT / result["seconds"])
                    late[name].append(percentile(result["latencies"], 99))
        for name, (port, process) in started.items():
            ratio = statistics.median(y / x for x, y in zip(costs["sqlite"], costs[name], strict=True))
            goal = f" (goal {GOALS[name]})" if name in GOALS else ""
            print(
                f"  {name:10} {statistics.median(costs[name]):5.0f} us a request, {ratio:.2f} of SQLite's{goal}; "
                f"{statistics.median(rates[name]):5.0f} a second, p99 {statistics.median(late[name]):5.1f} ms; "
                f"batches of 1000: {batches(port):6.0f} events a second; {memory(process):.0f} MiB"
            )


def claims(url: InboxUrl, number: int) -> float:
    """Owe so many events; give the seconds that a claim and its end take."""
    found = engines.deliveries(url).open(url)
    work: DeliveryState = found.work
    work.join({"bot": 0}, now=NOW)
    for start in range(0, number, 50_000):
        until = min(start + 50_000, number)
        work.plan(
            "bot", start, until, [Delivery(at, f"queue {at}", NOW) for at in range(start + 1, until + 1)], now=NOW
        )
    tried, ruling = Attempt(NOW, 0.001, 200, "delivered"), Ruling(Verdict.DELIVERED)
    taken = []
    for _ in range(CLAIMS):
        begun = time.perf_counter()
        (claim,) = work.claim("bot", 1, QueueKind.HEALTHY, now=NOW, lease=60_000)
        work.settle([Settlement(claim, tried, ruling)])
        taken.append(time.perf_counter() - begun)
    found.close()
    return statistics.median(taken)


def overwriting(directory: Path) -> tuple[float, float]:
    """Return what it costs that SQLite overwrites what is deleted: the ratio of CPU for storing, and for purging."""
    costs: dict[bool, list[tuple[float, float]]] = {True: [], False: []}
    for turn in range(2 * ROUNDS):
        overwrites = bool(turn % 2)
        with closing(SqliteInbox(directory / f"{turn}.db", Terms(1, 1))) as inbox:
            inbox._db.pragma("secure_delete", overwrites)  # noqa: SLF001  it has no switch that anybody would turn
            events = [
                event
                for _ in range(OVERWRITTEN)
                for event in parse(catalogue.notification("message text"), received_at=NOW, nonce="")
            ]
            begun = time.process_time()
            for start in range(0, OVERWRITTEN, PER_COMMIT):
                inbox.put(events[start : start + PER_COMMIT])
            stored = time.process_time()
            while inbox.purge(2 * NOW):
                pass
            costs[overwrites].append((stored - begun, time.process_time() - stored))
    pairs = list(zip(costs[True], costs[False], strict=True))
    storing, purging = (statistics.median(on[at] / off[at] for on, off in pairs) for at in range(2))
    return storing, purging


def main() -> None:
    """Compare, and print."""
    with tempfile.TemporaryDirectory(dir=os.environ.get("BENCH_DIR")) as made:
        storing, purging = overwriting(Path(made))
    print(
        f"SQLite overwrites what it deletes (secure_delete): CPU of storing {storing:.2f}, of purging {purging:.2f} "
        f"of that without; {ROUNDS} pairs of {OVERWRITTEN} events, {PER_COMMIT} a commit"
    )
    print(f"CPU of the service alone; {ROUNDS} rounds of {COUNT} notifications of 500 bytes on 16 connections:")
    for name, start in SERVERS.items():
        if name == "kafka" and not kafka.program():
            print("  kafka      not measured: TEST_KAFKA names no program that starts one")
            continue
        server, place = start()
        with tempfile.TemporaryDirectory(dir=os.environ.get("BENCH_DIR")) as made, server as running:
            compare(Path(made), name, place(running))
    with Postgresql() as server:
        few, many = (claims(inbox_url(server.new_database()), number) for number in (FEW, MANY))
        print(
            f"PostgreSQL: a claim and its end, of {FEW} owed {few * 1e6:.0f} us, of {MANY} {many * 1e6:.0f} us: "
            f"{many / few:.2f} (flat is 1)"
        )


if __name__ == "__main__":
    main()
