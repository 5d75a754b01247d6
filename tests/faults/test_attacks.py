"""What strangers cost honest traffic: nothing that it would notice. `make faults` prints the table of the long form."""

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import NamedTuple

import psutil
import pytest

from tests.receiver.worker.test_proxies import before as before_it
from tests.support.server import Server, post, read_answer, until
from tests.support.traffic import Traffic

SECONDS = float(os.environ.get("TEST_ATTACK_SECONDS", "1.5"))
MEMORY = 512 * 2**20
GROWN = 64 * 2**20  # bytes that the allocator may keep afterwards


class Attack(NamedTuple):
    """The kinds of strangers, how many of each, how many a second, and the p99 of honest answers in milliseconds."""

    kind: str
    connections: int
    per_second: int
    p99: int
    proxy: str = ""


# The limits are twice what a prototype of the defence reached.
SHORT = [
    Attack("pipelines", 200, 0, 260),
    Attack("chunks", 50, 0, 260),
    Attack("drips", 0, 330, 216),
    Attack("last_bytes", 26, 0, 126),
]
# The last ones keep both processors of a small machine busy by themselves.
LONG = [
    Attack("pipelines", 800, 0, 260),
    Attack("bodies", 2049, 0, 260),
    Attack("heads", 4080, 0, 2200),
    Attack("drips", 0, 2000, 2200),
    Attack("pipelines", 200, 0, 260, "nginx"),
    Attack("heads+bodies+last_bytes+chunks+pipelines", 600, 0, 5000),  # its memory is what counts
]


@contextmanager
def strangers(port: int, attack: Attack) -> Iterator[None]:
    """Have them attack until the block ends, each kind in a process of its own."""
    processes = [
        subprocess.Popen(
            [
                sys.executable,
                "-m",
                "tests.faults.attackers",
                kind,
                *map(str, (port, attack.connections, attack.per_second)),
            ],
        )
        for kind in attack.kind.split("+")
    ]
    try:
        yield
    finally:
        for process in processes:
            process.kill()
            process.wait()


def percentile(traffic: Traffic, share: float) -> float:
    """Return milliseconds."""
    return sorted(traffic.latencies)[int(len(traffic.latencies) * share)] * 1000


@pytest.mark.alone
@pytest.mark.usefixtures("many_files")
@pytest.mark.parametrize(
    "attack",
    [*SHORT, *(pytest.param(attack, marks=pytest.mark.long) for attack in LONG)],
    ids=lambda attack: f"{attack.kind}-{attack.connections or attack.per_second}{attack.proxy}",
)
def test_strangers_cost_honest_traffic_nothing(tmp_path: Path, attack: Attack) -> None:
    """Every notification is answered 200, soon; memory stays within its limit; afterwards all is as before."""
    with Server(tmp_path) as server, ExitStack() as stack:
        assert server.process
        port = stack.enter_context(before_it(server.port, attack.proxy, tmp_path)) if attack.proxy else server.port
        (worker,) = psutil.Process(server.process.pid).children()
        with Traffic(server, threads=2, pause=0.02, port=port) as before:
            time.sleep(0.5)
        calm = worker.memory_info().rss
        peak = 0
        with strangers(port, attack):
            time.sleep(1)
            with Traffic(server, threads=2, pause=0.02, port=port) as during:
                over = time.monotonic() + SECONDS
                while time.monotonic() < over:
                    time.sleep(0.1)
                    peak = max(peak, worker.memory_info().rss)
        ended = time.monotonic()
        until(lambda: server.notify(b"{}").status == 200, "not served again")
        recovered = time.monotonic() - ended
        until(
            lambda: worker.memory_info().rss < calm + GROWN, lambda: f"{worker.memory_info().rss / 2**20:.0f} MiB left"
        )
        forgotten = time.monotonic() - ended
        print(
            f"\n{attack.kind} {attack.connections or attack.per_second} {attack.proxy}: honest p50/p99 before "
            f"{percentile(before, 0.5):.0f}/{percentile(before, 0.99):.0f} ms, during "
            f"{percentile(during, 0.5):.0f}/{percentile(during, 0.99):.0f} ms, peak {peak / 2**20:.0f} MiB, "
            f"answers {dict(during.answers)}, recovered in {recovered:.1f} s, memory in {forgotten:.1f} s"
        )
        # One that is idle may be closed as its client writes; it asks again on another connection.
        assert set(during.answers) <= {"200", "BrokenPipeError", "RemoteDisconnected", "ConnectionResetError"}
        assert during.answers["200"] >= 0.95 * during.answers.total()
        assert peak < MEMORY
        assert percentile(during, 0.99) < attack.p99 + percentile(before, 0.99)


@pytest.mark.alone
@pytest.mark.usefixtures("many_files")
@pytest.mark.parametrize(
    ("size", "bits_per_second"), [(600_000, 4_000_000), pytest.param(3_000_000, 1_000_000, marks=pytest.mark.long)]
)
def test_a_slow_notification_is_never_cut_for_strangers(tmp_path: Path, size: int, bits_per_second: int) -> None:
    """One that moves keeps its connection until its deadline, however many stalled ones want a place."""
    body = b'{"object":"whatsapp_business_account","entry":[{"id":"1","x":"' + b"x" * size + b'"}]}'
    with Server(tmp_path, WEBHOOK_READ_TIMEOUT="60s", WEBHOOK_CONNECTIONS="256") as server:
        raw = post(body, server.secret)
        with strangers(server.port, Attack("drips", 0, 330, 0)), server.connect() as client:
            began = time.monotonic()
            sent = 0
            while sent < len(raw):
                due = int((time.monotonic() - began) * bits_per_second / 8)
                client.sendall(raw[sent : max(sent, due)])
                sent = max(sent, due)
                time.sleep(0.02)
            assert read_answer(client).status == 200
        assert time.monotonic() - began > len(raw) * 8 / bits_per_second * 0.95
