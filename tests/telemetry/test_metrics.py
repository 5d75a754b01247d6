"""Metrics of several workers, in processes of their own: the library's multiprocess half is process-wide."""

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


def test_a_file_that_another_worker_just_makes_is_waited_for(tmp_path: Path) -> None:
    """A scrape while a worker starts is no failure."""
    done = subprocess.run([sys.executable, "-c", HALF_MADE, tmp_path], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
