"""Measures the CPU cost of a delivery, relative to a plain urllib3 loop in the same run; see `make bench`.

Both have 16 requests in flight, to a destination that answers immediately.
"""

import json
import os
import secrets
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, nullcontext
from multiprocessing.sharedctypes import Synchronized
from pathlib import Path

import psutil

sys.path.insert(0, str(Path(__file__).parent))
import receiver
from destination import destination
from receiver import cpu, free_port

from service.events import parse
from service.storage.deliveries import Attempt, Delivery, QueueKind, Ruling, Settlement, Verdict
from service.storage.protocols import Terms
from service.storage.sqlite import SqliteInbox, rows, schema
from service.storage.sqlite.database import transaction
from service.storage.sqlite.delivery_database import SqliteDeliveryDatabase
from service.storage.sqlite.delivery_queue import SqliteDeliveries

HERE = Path(__file__).parent
CONCURRENCY = 16
WARM_UP_DELIVERIES = 1000
TIMEOUT_SECONDS = 120
COUNT = int(os.environ.get("BENCH_COUNT", "10000"))
ROUNDS = int(os.environ.get("BENCH_ROUNDS", "5"))
BACKLOG = int(os.environ.get("BENCH_BACKLOG", "100000"))
WINDOWS = 10
WINDOW_SECONDS = 5
RETENTION_MS = 8 * 86_400_000


def fill(path: Path, count: int, keys: int) -> None:
    """Store *count* messages of *keys* people, 500 bytes each."""
    with closing(SqliteInbox(path, Terms(RETENTION_MS, RETENTION_MS))) as inbox:
        now = int(time.time() * 1000)
        for start in range(0, count, 1000):
            numbers = range(start, min(start + 1000, count))
            inbox.put([event for number in numbers for event in parse(body(number % keys), received_at=now, nonce="")])


def body(person: int) -> bytes:
    """Return a notification of 500 bytes."""
    sender = str(16505550000 + person)
    message = {
        "from": sender,
        "id": f"wamid.{secrets.token_hex(20)}",
        "timestamp": str(int(time.time())),
        "type": "text",
        "text": {"body": "x" * 120},
    }
    value = {
        "messaging_product": "whatsapp",
        "metadata": {"display_phone_number": "15550783881", "phone_number_id": "106540352242922"},
        "messages": [message],
    }
    entry = {"id": "102290129340398", "changes": [{"value": value, "field": "messages"}]}
    return json.dumps({"object": "whatsapp_business_account", "entry": [entry]}, separators=(",", ":")).encode()


@contextmanager
def relaying(directory: Path, inbox: Path, port: int, concurrency: int = CONCURRENCY) -> Iterator[psutil.Process]:
    """Run a relay without state, which delivers from the beginning of the inbox, until the block exits."""
    for file in directory.glob("relay.db*"):
        file.unlink()
    (directory / "secret").write_text("whsec_" + "c2VjcmV0" * 4)
    (directory / "destinations.yaml").write_text(
        f"destinations:\n  - name: app\n    url: http://127.0.0.1:{port}/hook\n    internal: true\n"
        f"    format: cloudevents\n    secretFile: secret\n    from: beginning\n    concurrency: {concurrency}\n"
    )
    environ = {
        "WEBHOOK_INBOX": f"sqlite://{inbox}",
        "WEBHOOK_RELAY_BIND": f"127.0.0.1:{free_port()}",
        "WEBHOOK_DESTINATIONS": str(directory / "destinations.yaml"),
        "WEBHOOK_LOG_FORMAT": "json",
    }
    command = [sys.executable, "-m", "service", "relay"]
    log = (directory / "relay.log").open("wb")
    with log, subprocess.Popen(command, env=os.environ | environ, stdout=log, stderr=log) as process:
        try:
            yield psutil.Process(process.pid)
        finally:
            process.send_signal(signal.SIGTERM)
            process.wait(30)


@contextmanager
def plain_loop(port: int, count: int) -> Iterator[psutil.Process]:
    """Run the plain urllib3 loop."""
    command = [sys.executable, str(HERE / "urllib3_loop.py"), str(port), str(CONCURRENCY), str(count)]
    with subprocess.Popen(command) as process:
        yield psutil.Process(process.pid)
        process.kill()


def measure(process: psutil.Process, answered: "Synchronized[int]", count: int) -> tuple[float, float]:
    """Return the CPU seconds and the seconds that *count* deliveries took, after a warm-up."""
    started = wait_for(answered, answered.value + WARM_UP_DELIVERIES, process)
    ended = wait_for(answered, answered.value + count, process)
    return ended[0] - started[0], ended[1] - started[1]


def fill_while_running(path: Path, count: int) -> None:
    """Insert *count* messages of a hundred people directly into the table of a running receiver."""
    db = schema.connect(path, reserve_bytes=0)
    now = int(time.time() * 1000)
    for start in range(0, count, 1000):
        with transaction(db):
            for number in range(start, min(start + 1000, count)):
                for event in parse(body(number % 100), received_at=now, nonce=""):
                    rows.insert(db, [rows.row(rows.digest(event), event)])
    db.close()


def wait_until(condition: Callable[[], bool]) -> None:
    """Wait until *condition* is true; exit if it does not become true in time."""
    deadline = time.monotonic() + TIMEOUT_SECONDS
    while not condition():
        if time.monotonic() > deadline:
            raise SystemExit(f"the relay delivered nothing within {TIMEOUT_SECONDS} s")
        time.sleep(0.005)


def wait_for(answered: "Synchronized[int]", number: int, process: psutil.Process) -> tuple[float, float]:
    """Wait for so many deliveries, then return the process's CPU seconds and the time."""
    deadline = time.monotonic() + TIMEOUT_SECONDS
    while answered.value < number:
        if time.monotonic() > deadline:
            raise SystemExit(f"only {answered.value} of {number} deliveries in {TIMEOUT_SECONDS} s")
        time.sleep(0.002)
    return cpu(process), time.perf_counter()


def delivery_cost(directory: Path) -> None:
    """Print the CPU cost of a delivery, relative to the plain loop."""
    inbox = directory / "many.db"
    fill(inbox, COUNT + 2 * WARM_UP_DELIVERIES, COUNT)
    costs: dict[str, list[float]] = {"plain": [], "relay": []}
    rates: dict[str, list[float]] = {"plain": [], "relay": []}
    with destination() as (port, answered):
        for _ in range(ROUNDS):
            for name, running in (
                ("plain", plain_loop(port, COUNT + 2 * WARM_UP_DELIVERIES)),
                ("relay", relaying(directory, inbox, port)),
            ):
                with running as process:
                    cpu_seconds, seconds = measure(process, answered, COUNT)
                costs[name].append(cpu_seconds / COUNT * 1e6)
                rates[name].append(COUNT / seconds)
                time.sleep(0.2)
    print(
        f"CPU of a delivery; {ROUNDS} rounds of {COUNT}, {CONCURRENCY} in flight, to a destination that answers "
        "immediately:"
    )
    for name, label in (("plain", "a plain urllib3 loop"), ("relay", "the relay")):
        print(
            f"  {label:24} {statistics.median(costs[name]):6.0f} us CPU per delivery   "
            f"{statistics.median(rates[name]):6.0f} deliveries/s"
        )
    ratio = statistics.median(y / x for x, y in zip(costs["plain"], costs["relay"], strict=True))
    print(f"  relay / plain loop = {ratio:.2f} (goal 1.6)")


def one_key(directory: Path) -> None:
    """Print how fast a single partition key is delivered, in order, if the destination answers after 1 ms."""
    inbox = directory / "one.db"
    fill(inbox, 4 * WARM_UP_DELIVERIES, 1)
    with destination(0.001) as (port, answered), relaying(directory, inbox, port) as process:
        _, seconds = measure(process, answered, 2 * WARM_UP_DELIVERIES)
    rate = 2 * WARM_UP_DELIVERIES / seconds
    print(f"a single partition key, destination answers after 1 ms: {rate:.0f} deliveries/s (goal 500)")


def effect_on_receiver(directory: Path) -> None:
    """Print how draining a backlog affects the latency of the webhook, at 200 notifications per second."""
    ports = free_port(), free_port()
    environ = receiver.settings(directory, ports[0])
    inbox = directory / f"inbox-{ports[0]}.db"
    p99s: dict[bool, list[float]] = {True: [], False: []}
    delivered = 0
    with (
        destination() as (port, answered),
        receiver.serving([sys.executable, "-m", "service", "serve"], environ, ports[0]),
    ):
        fill_while_running(inbox, BACKLOG)
        for _ in range(WINDOWS):
            for with_relay in (False, True):
                before = answered.value
                with relaying(directory, inbox, port) if with_relay else nullcontext():
                    if with_relay:
                        wait_until(lambda before=before: answered.value > before)
                    result = receiver.send(ports[0], 200 * WINDOW_SECONDS, 200)
                p99s[with_relay].append(receiver.percentile(result["latencies"], 99))
                delivered += answered.value - before
    ratio = statistics.median(y / x for x, y in zip(p99s[False], p99s[True], strict=True))
    print(
        f"the webhook at 200 requests/s: p99 {statistics.median(p99s[False]):.1f} ms without a relay, "
        f"{statistics.median(p99s[True]):.1f} ms while a relay drains a backlog of {BACKLOG}; median ratio of "
        f"{WINDOWS} windows of {WINDOW_SECONDS} s: {ratio:.2f} (goal 1.5); {delivered} events delivered meanwhile"
    )


def claim_cost(directory: Path) -> None:
    """Print the cost of a claim and its settlement with a thousand and with a million pending deliveries."""
    medians = {}
    for number in (1_000, 1_000_000):
        store = SqliteDeliveryDatabase(directory / f"pending-{number}.db")
        work = SqliteDeliveries(store)
        work.join({"app": 0}, now=0)
        for start in range(0, number, 10_000):
            positions = range(start + 1, min(start + 10_000, number) + 1)
            deliveries = [Delivery(position, f"key {position}", 0) for position in positions]
            work.plan("app", start, positions[-1], deliveries, now=0)
        durations = []
        for started_at in range(40):
            started = time.perf_counter()
            claims = work.claim("app", CONCURRENCY, QueueKind.HEALTHY, now=1, lease=1000)
            attempt = Attempt(started_at, 0.1, 200, "delivered")
            work.settle([Settlement(claim, attempt, Ruling(Verdict.DELIVERED)) for claim in claims])
            durations.append((time.perf_counter() - started) / len(claims) * 1e6)
        medians[number] = statistics.median(durations)
        store.close()
    few, many = medians.values()
    print(f"a claim and its settlement: {few:.0f} us with 1,000 pending deliveries, {many:.0f} us with 1,000,000")


def main() -> None:
    """Measure everything, and print the results."""
    with tempfile.TemporaryDirectory(dir=os.environ.get("BENCH_DIR")) as temporary:
        directory = Path(temporary)
        for measurement in (delivery_cost, one_key, effect_on_receiver, claim_cost):
            measurement(directory)


if __name__ == "__main__":
    main()
