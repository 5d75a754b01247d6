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
from collections.abc import Iterator
from contextlib import closing, contextmanager
from multiprocessing.sharedctypes import Synchronized
from pathlib import Path

import psutil

sys.path.insert(0, str(Path(__file__).parent))
from destination import destination
from receiver import cpu, free_port

from service.events import parse
from service.inbox.sqlite import SqliteInbox

HERE = Path(__file__).parent
THREADS = 16
WARM = 1000
PATIENCE = 120
COUNT = int(os.environ.get("BENCH_COUNT", "10000"))
ROUNDS = int(os.environ.get("BENCH_ROUNDS", "5"))
EIGHT_DAYS = 8 * 86_400_000


def fill(inbox: Path, count: int, keys: int) -> None:
    """Keep *count* messages of *keys* people, 500 bytes each."""
    with closing(SqliteInbox(inbox, retention=EIGHT_DAYS, body_retention=EIGHT_DAYS)) as kept:
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


def wait_for(seen: "Synchronized[int]", number: int, process: psutil.Process) -> tuple[float, float]:
    """Wait for so many deliveries, then give the process's CPU seconds and the time."""
    over = time.monotonic() + PATIENCE
    while seen.value < number:
        if time.monotonic() > over:
            raise SystemExit(f"only {seen.value} of {number} deliveries in {PATIENCE} s")
        time.sleep(0.002)
    return cpu(process), time.perf_counter()


def main() -> None:
    """Compare, and print."""
    with tempfile.TemporaryDirectory(dir=os.environ.get("BENCH_DIR")) as made:
        directory = Path(made)
        many = directory / "inbox.db"
        fill(many, COUNT + 2 * WARM, COUNT)
        costs: dict[str, list[float]] = {"hand": [], "relay": []}
        rates: dict[str, list[float]] = {"hand": [], "relay": []}
        with destination() as (port, seen):
            for _ in range(ROUNDS):
                with by_hand(port, COUNT + 2 * WARM) as process:
                    taken, seconds = measured(process, seen, COUNT)
                costs["hand"].append(taken / COUNT * 1e6)
                rates["hand"].append(COUNT / seconds)
                time.sleep(0.2)
                with relaying(directory, many, port) as process:
                    taken, seconds = measured(process, seen, COUNT)
                costs["relay"].append(taken / COUNT * 1e6)
                rates["relay"].append(COUNT / seconds)
                time.sleep(0.2)
        for name, what in (("hand", "a bare loop of urllib3"), ("relay", "the relay")):
            print(
                f"  {what:24} {statistics.median(costs[name]):6.0f} us a delivery  "
                f"{statistics.median(rates[name]):6.0f} a second"
            )
        ratio = statistics.median(y / x for x, y in zip(costs["hand"], costs["relay"], strict=True))
        print(f"  relay / bare = {ratio:.2f} (goal 1.6)")


if __name__ == "__main__":
    main()
