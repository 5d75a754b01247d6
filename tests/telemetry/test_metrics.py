"""Metrics of several workers, in separate processes: the library's multiprocess mode is process-wide."""

import subprocess
import sys
from pathlib import Path

HALF_MADE = """
import sys, threading, time
from pathlib import Path
import prometheus_client
from service.telemetry import metrics

directory = Path(sys.argv[1])
metrics.forget_files(directory)
_, registry = metrics.of_slot(directory, 0, version="1", engine="memory", weak=True)
other = directory / "counter_w1.db"
other.touch()
threading.Timer(0.05, lambda: other.write_bytes(bytes(65536))).start()
assert b"whatsapp_webhook_build_info" in prometheus_client.generate_latest(registry)
"""


def test_an_incomplete_file_of_another_worker(tmp_path: Path) -> None:
    """A scrape while a worker creates its file waits for it, and succeeds."""
    done = subprocess.run([sys.executable, "-c", HALF_MADE, tmp_path], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
