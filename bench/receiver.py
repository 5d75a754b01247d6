"""Measures the CPU cost of a notification, relative to a baseline in the same run; see `make bench`.

(a) is Falcon on gunicorn's own gevent worker, with a resource that verifies the signature and answers; (b) the service
with its defaults: durable, metrics enabled; (c) the same with 1 % of the requests traced. The cost is the CPU time of
the whole process tree per request, which varies less than requests per second. Each notification has 500 bytes and a
unique id, on 16 keep-alive connections.
"""

import json
import os
import secrets
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import psutil

sys.path.insert(0, str(Path(__file__).parent))
import load

from service.meta import catalogue

HERE = Path(__file__).parent
SECRET = secrets.token_hex(16)
CONNECTIONS = 16
COUNT = int(os.environ.get("BENCH_COUNT", "10000"))
ROUNDS = int(os.environ.get("BENCH_ROUNDS", "5"))


def free_port() -> int:
    """Return a port on which nothing listens."""
    with socket.create_server(("127.0.0.1", 0)) as probe:
        return int(probe.getsockname()[1])


def cpu(process: psutil.Process) -> float:
    """Return the CPU seconds of a process tree."""
    tree = [process, *process.children(recursive=True)]
    return sum(times.user + times.system for times in (each.cpu_times() for each in tree))


def memory(process: psutil.Process) -> float:
    """Return the memory of a process tree in MiB, counting each shared page once."""
    return sum(each.memory_full_info().pss for each in (process, *process.children(recursive=True))) / 2**20


@contextmanager
def serving(command: list[str], environ: dict[str, str], port: int) -> Iterator[psutil.Process]:
    """Run a server until the block exits."""
    log = (Path(environ["BENCH_DIR"]) / f"{port}.log").open("wb")
    with subprocess.Popen(command, env=os.environ | environ, stdout=log, stderr=log, cwd=HERE) as process:
        deadline = time.monotonic() + 20
        while True:
            try:
                socket.create_connection(("127.0.0.1", port)).close()
                break
            except OSError:
                if time.monotonic() > deadline:
                    raise
                time.sleep(0.05)
        time.sleep(1)
        try:
            yield psutil.Process(process.pid)
        finally:
            process.send_signal(signal.SIGTERM)
            process.wait(30)


def bare(port: int) -> list[str]:
    """Return the command of (a)."""
    return [
        sys.executable,
        "-m",
        "gunicorn",
        "-k",
        "gevent",
        "-b",
        f"127.0.0.1:{port}",
        "--no-control-socket",
        "bare:app()",
    ]


def settings(directory: Path, port: int, **more: str) -> dict[str, str]:
    """Return the environment of the service."""
    credentials = directory / "credentials"
    credentials.mkdir(exist_ok=True)
    (credentials / "verify-token").write_text("token")
    (credentials / "app-secret").write_text(SECRET)
    return {
        "WEBHOOK_BIND": f"127.0.0.1:{port}",
        "WEBHOOK_ADMIN_BIND": f"127.0.0.1:{free_port()}",
        "WEBHOOK_RUN_DIR": str(directory / f"run-{port}"),
        "WEBHOOK_CREDENTIALS_DIR": str(credentials),
        "WEBHOOK_INBOX": f"sqlite://{directory}/inbox-{port}.db",
        "BENCH_DIR": str(directory),
        **more,
    }


class Collector(BaseHTTPRequestHandler):
    """Accepts spans and discards them."""

    def do_POST(self) -> None:
        """Answer 200."""
        self.rfile.read(int(self.headers["Content-Length"]))
        self.send_response(200)
        self.end_headers()

    def log_message(self, *_args: object) -> None:
        """Log nothing."""


def send(port: int, count: int, rate: float | None = None) -> dict:
    """Send load from another process; return what it measured."""
    command = [sys.executable, str(HERE / "load.py"), str(port), SECRET, str(CONNECTIONS), str(count)]
    done = subprocess.run(command + ([str(rate)] if rate else []), check=True, capture_output=True)
    result = json.loads(done.stdout)
    if set(result["answers"]) != {"200"}:
        raise SystemExit(f"not every answer was 200: {result['answers']}")
    return result


def percentile(latencies: list[float], share: float) -> float:
    """Return the latency that *share* percent of the requests did not exceed."""
    return latencies[min(int(len(latencies) * share / 100), len(latencies) - 1)]


def fsync_seconds(directory: Path) -> float:
    """Return the median duration of 200 calls of fdatasync, 4 KiB each."""
    durations = []
    with (directory / "fsync").open("wb") as file:
        for _ in range(200):
            file.write(secrets.token_bytes(4096))
            file.flush()
            started = time.perf_counter()
            os.fdatasync(file.fileno())
            durations.append(time.perf_counter() - started)
    return statistics.median(durations)


def batches(port: int) -> float:
    """Send batches of 1000 updates, two at a time; return events per second."""
    bodies = [load.request(SECRET.encode(), catalogue.batch(1000)) for _ in range(60)]
    result = load.run(port, bodies, 2, None)
    return len(bodies) * 1000 / result["seconds"]


def main() -> None:
    """Measure everything, and print the results."""
    collector = ThreadingHTTPServer(("127.0.0.1", 0), Collector)
    threading.Thread(target=collector.serve_forever, daemon=True).start()
    traced = {
        "OTEL_EXPORTER_OTLP_ENDPOINT": f"http://127.0.0.1:{collector.server_port}",
        "OTEL_TRACES_SAMPLER": "traceidratio",
        "OTEL_TRACES_SAMPLER_ARG": "0.01",
    }
    service = [sys.executable, "-m", "service", "serve"]
    with tempfile.TemporaryDirectory(dir=os.environ.get("BENCH_DIR")) as temporary:
        directory = Path(temporary)
        ports = {name: free_port() for name in "abc"}
        with (
            serving(bare(ports["a"]), {"BENCH_SECRET": SECRET, "BENCH_DIR": temporary}, ports["a"]) as a,
            serving(service, settings(directory, ports["b"]), ports["b"]) as b,
            serving(service, settings(directory, ports["c"], **traced), ports["c"]) as c,
        ):
            idle = memory(b)
            costs: dict[str, list[float]] = {name: [] for name in "abc"}
            rates: dict[str, list[float]] = {name: [] for name in "abc"}
            p99s: dict[str, list[float]] = {name: [] for name in "abc"}
            for number in range(ROUNDS + 1):
                for name, process in (("a", a), ("b", b), ("c", c)):
                    before = cpu(process)
                    result = send(ports[name], COUNT)
                    if number:  # the first round warms up
                        costs[name].append((cpu(process) - before) / COUNT * 1e6)
                        rates[name].append(COUNT / result["seconds"])
                        p99s[name].append(percentile(result["latencies"], 99))
            print(
                f"CPU of the process tree; {ROUNDS} rounds of {COUNT} notifications of 500 bytes on "
                f"{CONNECTIONS} connections:"
            )
            for name, label in (
                ("a", "Falcon on gunicorn gevent"),
                ("b", "the service"),
                ("c", "the service, 1 % traced"),
            ):
                print(
                    f"  ({name}) {label:28} {statistics.median(costs[name]):6.0f} us CPU per request   "
                    f"{statistics.median(rates[name]):6.0f} requests/s   p99 {statistics.median(p99s[name]):5.1f} ms"
                )
            ratio = statistics.median(y / x for x, y in zip(costs["a"], costs["b"], strict=True))
            print(f"  b / a = {ratio:.2f} (goal 0.7)")
            p99_ratio = statistics.median(p99s["b"]) / statistics.median(p99s["a"])
            print(f"  p99 of b / p99 of a = {p99_ratio:.2f} (goal 2)")
            ratio = statistics.median(y / x for x, y in zip(costs["b"], costs["c"], strict=True))
            print(f"  c / b = {ratio:.2f} (goal 1.1)")
            print(f"batches of 1000 updates: {batches(ports['b']):.0f} events/s into SQLite (goal 30000)")
            result = send(ports["b"], 4500, 500)  # takes 9 s: connections that are idle for 10 s are closed
            for share in (50, 99, 99.9):
                print(f"500 requests/s, open loop: p{share:g} {percentile(result['latencies'], share):.1f} ms")
            print(f"fdatasync of 4 KiB on this disk: {fsync_seconds(directory) * 1000:.2f} ms")
            print(f"memory of the service: {memory(b):.0f} MiB; before the load {idle:.0f} MiB (goal 80)")


if __name__ == "__main__":
    main()
