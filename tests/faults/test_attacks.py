"""Attackers without a secret do not affect valid notifications. `make faults` prints the table of the long form."""

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

from tests.receiver.worker.test_proxies import proxying
from tests.support.server import Server, post, read_answer, until
from tests.support.traffic import Traffic

SECONDS = float(os.environ.get("TEST_ATTACK_SECONDS", "1.5"))
MAX_MEMORY_BYTES = 512 * 2**20
MAX_GROWTH_BYTES = 64 * 2**20  # what the allocator may keep afterwards


class Attack(NamedTuple):
    """The kinds of attackers, their number or rate, and the limit for the p99 of valid requests in milliseconds."""

    kind: str
    connections: int
    per_second: int
    p99: int
    proxy: str = ""


# The limits are twice the values of a prototype.
SHORT = [
    Attack("pipelines", 200, 0, 260),
    Attack("chunks", 50, 0, 260),
    Attack("drips", 0, 330, 216),
    Attack("last_bytes", 26, 0, 126),
]
# The attackers of the last ones alone keep both processors of a small machine busy.
LONG = [
    Attack("pipelines", 800, 0, 260),
    Attack("bodies", 2049, 0, 260),
    Attack("heads", 4080, 0, 2200),
    Attack("drips", 0, 2000, 2200),
    Attack("pipelines", 200, 0, 260, "nginx"),
    Attack("heads+bodies+last_bytes+chunks+pipelines", 600, 0, 5000),  # mainly for its memory
]


@contextmanager
def attackers(port: int, attack: Attack) -> Iterator[None]:
    """Run attackers until the block exits, with one process per kind."""
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
    """Return the latency that this share of the requests did not exceed, in milliseconds."""
    return sorted(traffic.latencies)[int(len(traffic.latencies) * share)] * 1000


@pytest.mark.alone
@pytest.mark.usefixtures("many_files")
@pytest.mark.parametrize(
    "attack",
    [*SHORT, *(pytest.param(attack, marks=pytest.mark.long) for attack in LONG)],
    ids=lambda attack: f"{attack.kind}-{attack.connections or attack.per_second}{attack.proxy}",
)
def test_attackers_do_not_affect_valid_notifications(tmp_path: Path, attack: Attack) -> None:
    """Notifications are answered 200 quickly, memory stays within its limit, and is released afterwards."""
    with Server(tmp_path) as server, ExitStack() as stack:
        assert server.process
        port = stack.enter_context(proxying(server.port, attack.proxy, tmp_path)) if attack.proxy else server.port
        (worker,) = psutil.Process(server.process.pid).children()
        with Traffic(server, threads=2, pause=0.02, port=port) as before:
            time.sleep(0.5)
        memory_before = worker.memory_info().rss
        peak = 0
        with attackers(port, attack):
            time.sleep(1)
            with Traffic(server, threads=2, pause=0.02, port=port) as during:
                end = time.monotonic() + SECONDS
                while time.monotonic() < end:
                    time.sleep(0.1)
                    peak = max(peak, worker.memory_info().rss)
        ended = time.monotonic()
        until(lambda: server.notify(b"{}").status == 200, "not served after the attack")
        recovery_seconds = time.monotonic() - ended
        until(
            lambda: worker.memory_info().rss < memory_before + MAX_GROWTH_BYTES,
            lambda: f"{worker.memory_info().rss / 2**20:.0f} MiB are still used",
        )
        release_seconds = time.monotonic() - ended
        print(
            f"\n{attack.kind} {attack.connections or attack.per_second} {attack.proxy}: valid requests p50/p99 before "
            f"{percentile(before, 0.5):.0f}/{percentile(before, 0.99):.0f} ms, during "
            f"{percentile(during, 0.5):.0f}/{percentile(during, 0.99):.0f} ms, peak {peak / 2**20:.0f} MiB, answers "
            f"{dict(during.answers)}, recovered in {recovery_seconds:.1f} s, memory released in {release_seconds:.1f} s"
        )
        # An idle connection may be closed while its client writes; the client then opens another one.
        assert set(during.answers) <= {"200", "BrokenPipeError", "RemoteDisconnected", "ConnectionResetError"}
        assert during.answers["200"] >= 0.95 * during.answers.total()
        assert peak < MAX_MEMORY_BYTES
        assert percentile(during, 0.99) < attack.p99 + percentile(before, 0.99)


@pytest.mark.alone
@pytest.mark.usefixtures("many_files")
@pytest.mark.parametrize(
    ("size", "bits_per_second"), [(600_000, 4_000_000), pytest.param(3_000_000, 1_000_000, marks=pytest.mark.long)]
)
def test_a_slow_notification_is_not_closed_in_favour_of_attackers(
    tmp_path: Path, size: int, bits_per_second: int
) -> None:
    """A connection that makes progress is not closed before its deadline, however many stalled ones compete with it."""
    body = b'{"object":"whatsapp_business_account","entry":[{"id":"1","x":"' + b"x" * size + b'"}]}'
    with Server(tmp_path, WEBHOOK_READ_TIMEOUT="60s", WEBHOOK_CONNECTIONS="256") as server:
        raw = post(body, server.secret)
        with attackers(server.port, Attack("drips", 0, 330, 0)), server.connect() as client:
            started = time.monotonic()
            sent = 0
            while sent < len(raw):
                due = int((time.monotonic() - started) * bits_per_second / 8)
                client.sendall(raw[sent : max(sent, due)])
                sent = max(sent, due)
                time.sleep(0.02)
            assert read_answer(client).status == 200
        assert time.monotonic() - started > len(raw) * 8 / bits_per_second * 0.95
