"""Power loss, which kill -9 does not simulate: a file system is shut down under load, and mounted again.

An ext4 image is shut down by its ioctl without flushing its journal, so everything that was not synced is lost.
Source: the kernel's `EXT4_IOC_SHUTDOWN` (fs/ext4/ioctl.c), flag 2, as xfstests use it.
"""

import ctypes
import fcntl
import os
import random
import signal
import struct
import subprocess
import sys
import threading
import time
from contextlib import closing
from pathlib import Path

import apsw
import pytest

from service.errors import InboxUnavailable
from service.storage import sqlite
from tests.faults.ledger import Ledger, kept_ids
from tests.support.server import Server

TRIALS = int(os.environ.get("TEST_POWER_TRIALS", "5"))
SHUTDOWN = 0x8004587D
NO_LOG_FLUSH = 2

CLONE_NEWNS = 0x00020000

pytestmark = pytest.mark.needs("loop")


@pytest.fixture(scope="module", autouse=True)
def alone() -> None:
    """Hide the mounts of this process from other processes.

    A container that is started meanwhile would copy the mount and keep a file system in use that was shut down: the
    next mount of its image would be the same file system, still shut down.
    """
    assert ctypes.CDLL(None, use_errno=True).unshare(CLONE_NEWNS) == 0, os.strerror(ctypes.get_errno())
    subprocess.run(["mount", "--make-rprivate", "/"], check=True)


class Disk:
    """A file system whose power can be cut."""

    def __init__(self, directory: Path) -> None:
        self._image = directory / "image"
        self.path = directory / "disk"
        self.path.mkdir()
        with self._image.open("wb") as image:
            image.truncate(2**31)  # sparse; more than all trials write
        subprocess.run(["mkfs.ext4", "-q", "-F", str(self._image)], check=True)
        self.mount()

    def mount(self) -> None:
        """Mount it, as after power is restored."""
        subprocess.run(["mount", "-o", "loop", str(self._image), str(self.path)], check=True)

    def cut(self) -> None:
        """Cut the power: nothing more is written, not even the kernel's buffers."""
        handle = os.open(self.path, os.O_RDONLY)
        try:
            fcntl.ioctl(handle, SHUTDOWN, struct.pack("I", NO_LOG_FLUSH))
        finally:
            os.close(handle)

    def unmount(self) -> None:
        """Unmount it; after 20 seconds lazily."""
        deadline = time.monotonic() + 20
        while subprocess.run(["umount", str(self.path)], capture_output=True, check=False).returncode:
            if time.monotonic() > deadline:
                subprocess.run(["umount", "-l", str(self.path)], check=False)
                return
            time.sleep(0.1)


@pytest.mark.timeout(7200)
def test_every_acknowledged_event_survives(tmp_path: Path) -> None:
    """In each trial: load, a power cut at a random moment, a remount: all that was answered 200 is stored."""
    disk = Disk(tmp_path)
    server = Server(tmp_path, WEBHOOK_INBOX=f"sqlite://{disk.path}/inbox.db")
    server.write_credentials(server.token, server.secret)
    server.inbox = disk.path / "inbox.db"
    acknowledged: set[str] = set()
    sent: set[str] = set()
    try:
        for number in range(TRIALS):
            server.start()
            server.wait_until_ready()
            assert not acknowledged - kept_ids(server), f"lost before trial {number}"
            with Ledger(server) as ledger:
                ledger.wait_for(20)
                time.sleep(random.random())
                # Without power no program runs, so the server is stopped first, wherever it is. Otherwise a sync that
                # ends during the ioctl, which takes milliseconds, may report success although the data is lost.
                os.killpg(server.process.pid, signal.SIGSTOP)
                disk.cut()
                server.kill()
            disk.unmount()
            disk.mount()
            sent |= ledger.sent
            acknowledged |= ledger.acknowledged
            with closing(apsw.Connection(str(server.inbox))) as db:
                assert db.pragma("integrity_check") == "ok"
            stored = kept_ids(server)
            lost = acknowledged - stored
            assert not lost, f"lost in trial {number}: {len(lost)} of {len(acknowledged)}"
            assert not stored - sent
    finally:
        server.kill()
        disk.unmount()
    print(f"{TRIALS} power cuts, {len(acknowledged)} events acknowledged, none lost")
    assert len(acknowledged) >= TRIALS * 20


PUTTER = """
import sys
from pathlib import Path
from tests.support.events import event
from service.storage.protocols import Terms
from service.storage.sqlite import SqliteInbox
inbox = SqliteInbox(Path(sys.argv[1]), Terms(10**12, 10**12))
inbox._db.pragma("synchronous", sys.argv[2])
inbox._db.pragma("wal_autocheckpoint", 0)  # a checkpoint syncs too: only the commit's own sync is tested
number = 0
while True:
    inbox.put([event(number)])
    number += 1
    print(number, flush=True)
"""


def survivors(disk: Disk, synchronous: str) -> tuple[int, int]:
    """Store events one by one and cut the power; return how many were acknowledged, and how many are stored."""
    path = disk.path / f"{synchronous}.db"
    with subprocess.Popen(
        [sys.executable, "-c", PUTTER, str(path), synchronous],
        stdout=subprocess.PIPE,
        env=os.environ | {"PYTHONPATH": str(Path(__file__).parents[2])},
    ) as putter:
        drain = threading.Thread(target=lambda: acknowledged.extend(putter.stdout))
        acknowledged: list[bytes] = []
        drain.start()
        deadline = time.monotonic() + 5
        while len(acknowledged) < 2000 and time.monotonic() < deadline:  # fewer than would fill the disk
            time.sleep(0.001)
        putter.send_signal(signal.SIGSTOP)
        disk.cut()
        putter.kill()
        drain.join()
    disk.unmount()
    disk.mount()
    try:
        with closing(sqlite.SqliteLog(path)) as log:
            return int(acknowledged[-1]), len(log.read(0, 10_000_000))
    except InboxUnavailable:  # the table itself was lost
        return int(acknowledged[-1]), 0


def test_the_control_loses(tmp_path: Path) -> None:
    """With `synchronous=NORMAL` the same power cut must lose events; with our setting, `FULL`, it must not."""
    disk = Disk(tmp_path)
    try:
        acknowledged, stored = survivors(disk, "FULL")
        assert stored >= acknowledged > 0
        acknowledged, stored = survivors(disk, "NORMAL")
        assert stored < acknowledged
    finally:
        disk.unmount()
