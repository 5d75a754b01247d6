"""What a delivery costs, compared in one run; see `make bench`.

A bare loop of urllib3 and the relay as it ships, 16 in flight each, to a destination that answers at once.
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
THREADS = 16
WARM = 1000
PATIENCE = 120
COUNT = int(os.environ.get("BENCH_COUNT", "10000"))
ROUNDS = int(os.environ.get("BENCH_ROUNDS", "5"))
BACKLOG = int(os.environ.get("BENCH_BACKLOG", "100000"))
WINDOWS = 10
WINDOW = 5  # seconds
EIGHT_DAYS = 8 * 86_400_000


def fill(inbox: Path, count: int, keys: int) -> None:
    """Keep *count* messages of *keys* people, 500 bytes each."""
    with closing(SqliteInbox(inbox, Terms(EIGHT_DAYS, EIGHT_DAYS))) as kept:
        now = int(time.time() * 1000)
        for start in range(0, count, 1000):
            numbers = range(start, min(start + 1000, count))
            kept.put([event for number in numbers for event in parse(body(number % keys), received_at=now, nonce="")])


def body(person: int) -> bytes:
    """Write a notification of 500 bytes."""
    who = str(16505550000 + person)
    message = {
        "from": who,
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
def relaying(directory: Path, inbox: Path, port: int, concurrency: int = THREADS) -> Iterator[psutil.Process]:
    """Run a relay that begins at the beginning, until the block ends."""
    for left in directory.glob("relay.db*"):
        left.unlink()
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
def by_hand(port: int, count: int) -> Iterator[psutil.Process]:
    """Run the bare loop."""
    command = [sys.executable, str(HERE / "hand.py"), str(port), str(THREADS), str(count)]
    with subprocess.Popen(command) as process:
        yield psutil.Process(process.pid)
        process.kill()


def measured(process: psutil.Process, seen: "Synchronized[int]", count: int) -> tuple[float, float]:
    """Give CPU seconds and seconds that *count* deliveries took, after some that warm up."""
    begun = wait_for(seen, seen.value + WARM, process)
    ended = wait_for(seen, seen.value + count, process)
    return ended[0] - begun[0], ended[1] - begun[1]


def fill_beside(inbox: Path, count: int) -> None:
    """Keep *count* messages of a hundred people as the receiver does, while it runs: straight into its table."""
    db = schema.connect(inbox, reserve_bytes=0)
    now = int(time.time() * 1000)
    for start in range(0, count, 1000):
        with transaction(db):
            for number in range(start, min(start + 1000, count)):
                for event in parse(body(number % 100), received_at=now, nonce=""):
                    rows.insert(db, [rows.row(rows.digest(event), event)])
    db.close()


def wait_until(done: Callable[[], bool]) -> None:
    """Wait for something."""
    over = time.monotonic() + PATIENCE
    while not done():
        if time.monotonic() > over:
            raise SystemExit("it does not begin")
        time.sleep(0.005)


def wait_for(seen: "Synchronized[int]", number: int, process: psutil.Process) -> tuple[float, float]:
    """Wait for so many deliveries, then give the process's CPU seconds and the time."""
    over = time.monotonic() + PATIENCE
    while seen.value < number:
        if time.monotonic() > over:
            raise SystemExit(f"only {seen.value} of {number} deliveries in {PATIENCE} s")
        time.sleep(0.002)
    return cpu(process), time.perf_counter()


def compare(directory: Path) -> None:
    """Print what a delivery costs, beside the bare loop."""
    inbox = directory / "many.db"
    fill(inbox, COUNT + 2 * WARM, COUNT)
    costs: dict[str, list[float]] = {"hand": [], "relay": []}
    rates: dict[str, list[float]] = {"hand": [], "relay": []}
    with destination() as (port, seen):
        for _ in range(ROUNDS):
            for name, running in (
                ("hand", by_hand(port, COUNT + 2 * WARM)),
                ("relay", relaying(directory, inbox, port)),
            ):
                with running as process:
                    taken, seconds = measured(process, seen, COUNT)
                costs[name].append(taken / COUNT * 1e6)
                rates[name].append(COUNT / seconds)
                time.sleep(0.2)
    print(f"CPU of a delivery; {ROUNDS} rounds of {COUNT}, {THREADS} in flight, to a destination that answers at once:")
    for name, what in (("hand", "a bare loop of urllib3"), ("relay", "the relay")):
        print(
            f"  {what:24} {statistics.median(costs[name]):6.0f} us a delivery   "
            f"{statistics.median(rates[name]):6.0f} a second"
        )
    ratio = statistics.median(y / x for x, y in zip(costs["hand"], costs["relay"], strict=True))
    print(f"  relay / bare = {ratio:.2f} (goal 1.6)")


def one_key(directory: Path) -> None:
    """Print how fast a single key goes, in order, where the destination takes a millisecond."""
    inbox = directory / "one.db"
    fill(inbox, 4 * WARM, 1)
    with destination(0.001) as (port, seen), relaying(directory, inbox, port) as process:
        _, seconds = measured(process, seen, 2 * WARM)
    print(f"a single key, the destination takes 1 ms: {2 * WARM / seconds:.0f} a second (goal 500)")


def beside(directory: Path) -> None:
    """Print what a backlog that is drained does to the answers of the webhook, at 200 notifications a second."""
    ports = free_port(), free_port()
    environ = receiver.settings(directory, ports[0])
    inbox = directory / f"inbox-{ports[0]}.db"
    late: dict[bool, list[float]] = {True: [], False: []}
    drained = 0
    with (
        destination() as (port, seen),
        receiver.serving([sys.executable, "-m", "service", "serve"], environ, ports[0]),
    ):
        fill_beside(inbox, BACKLOG)
        for _ in range(WINDOWS):
            for with_relay in (False, True):
                before = seen.value
                with relaying(directory, inbox, port) if with_relay else nullcontext():
                    if with_relay:
                        wait_until(lambda before=before: seen.value > before)
                    result = receiver.send(ports[0], 200 * WINDOW, 200)
                late[with_relay].append(receiver.percentile(result["latencies"], 99))
                drained += seen.value - before
    ratio = statistics.median(y / x for x, y in zip(late[False], late[True], strict=True))
    print(
        f"the webhook at 200 a second, p99 without a relay and while one drains {BACKLOG}: "
        f"{statistics.median(late[False]):.1f} and {statistics.median(late[True]):.1f} ms; "
        f"median ratio of {WINDOWS} windows of {WINDOW} s: {ratio:.2f} (goal 1.5); {drained} were delivered meanwhile"
    )


def flat(directory: Path) -> None:
    """Print what a claim and its end cost with a thousand and with a million events kept and owed."""
    taken = {}
    for number in (1_000, 1_000_000):
        store = SqliteDeliveryDatabase(directory / f"flat-{number}.db")
        work = SqliteDeliveries(store)
        work.join({"app": 0}, now=0)
        for start in range(0, number, 10_000):
            some = range(start + 1, min(start + 10_000, number) + 1)
            work.plan("app", start, some[-1], [Delivery(position, f"key {position}", 0) for position in some], now=0)
        times = []
        for turn in range(40):
            began = time.perf_counter()
            claims = work.claim("app", THREADS, QueueKind.HEALTHY, now=1, lease=1000)
            tried = Attempt(turn, 0.1, 200, "delivered")
            work.settle([Settlement(claim, tried, Ruling(Verdict.DELIVERED)) for claim in claims])
            times.append((time.perf_counter() - began) / len(claims) * 1e6)
        taken[number] = statistics.median(times)
        store.close()
    few, many = taken.values()
    print(f"a claim and its end: {few:.0f} us of 1,000 owed, {many:.0f} us of 1,000,000")


def main() -> None:
    """Compare, and print."""
    with tempfile.TemporaryDirectory(dir=os.environ.get("BENCH_DIR")) as made:
        directory = Path(made)
        for measure in (compare, one_key, beside, flat):
            measure(directory)


if __name__ == "__main__":
    main()
