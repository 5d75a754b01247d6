"""The SQLite inbox on a full volume: a purge frees room every time, and readiness does not flap."""

import os
import subprocess
import time
from collections.abc import Iterator
from contextlib import closing, suppress
from pathlib import Path

import msgspec
import pytest

from service.errors import InboxUnavailable
from service.outcomes import StorageFailure
from service.storage.protocols import Terms
from service.storage.sqlite import SqliteInbox
from service.storage.sqlite.volume import PROBE_BYTES, PROBE_INTERVAL_SECONDS, VolumeProbe
from tests.support.events import HOUR, event

VOLUME_BYTES = 32 * 2**20


@pytest.fixture
def path(tmp_path: Path) -> Iterator[Path]:
    command = ["mount", "-t", "tmpfs", "-o", f"size={VOLUME_BYTES}", "tmpfs", str(tmp_path)]
    subprocess.run(command, check=True)
    yield tmp_path / "inbox.db"
    subprocess.run(["umount", "-l", str(tmp_path)], check=True)


def fill(inbox: SqliteInbox, size: int, *, first: int) -> int:
    """Store recent events of *size* bytes until there is no room; return the number after the last."""
    now = int(time.time() * 1000)
    for number in range(first, first + 20_000):
        try:
            inbox.put([msgspec.structs.replace(event(number, at=now), data=os.urandom(size))])
        except InboxUnavailable as ex:
            if ex.reason != StorageFailure.FULL:
                raise
            return number
    raise AssertionError("the volume was never full")


def fill_every_byte(volume: Path) -> None:
    with suppress(OSError), (volume / "filler").open("wb", buffering=0) as filler:
        while filler.write(bytes(4096)):
            pass


@pytest.mark.needs("mounts")
@pytest.mark.parametrize("size", [4_000, 60_000, 1_000_000])
def test_old_events_are_purged_each_time_the_volume_is_full(path: Path, size: int) -> None:
    """With events of any size. The file does not shrink, so there is no room to create the reserve again."""
    number = 1
    with closing(SqliteInbox(path, Terms(HOUR, HOUR))) as inbox:
        for _ in range(3):
            number = fill(inbox, size, first=number)
            for _ in range(2000):
                if not inbox.purge(int(time.time() * 1000) + 2 * HOUR):
                    break
            assert inbox.size().events == 0


@pytest.mark.needs("mounts")
def test_a_put_purges_old_events_if_it_needs_their_room(path: Path) -> None:
    """After the retention was shortened, a put need not wait for the next purge."""
    with closing(SqliteInbox(path, Terms(HOUR, HOUR))) as inbox:
        last = fill(inbox, 4_000, first=1)
    time.sleep(0.01)
    with closing(SqliteInbox(path, Terms(10, 10))) as inbox:
        for number in range(last, last + last // 2, 100):
            recent = [event(number + each, at=int(time.time() * 1000)) for each in range(100)]
            inbox.put([msgspec.structs.replace(each, data=os.urandom(4_000)) for each in recent])


@pytest.mark.needs("mounts")
def test_a_start_after_a_stop_on_a_full_volume(path: Path) -> None:
    """It succeeds even if there is no reserve, and another process has used every byte that the stop freed."""
    with closing(SqliteInbox(path, Terms(HOUR, HOUR))) as inbox:
        fill(inbox, 4_000, first=1)
        inbox.purge(int(time.time() * 1000))
        path.with_name("inbox.db-reserve").unlink(missing_ok=True)
    fill_every_byte(path.parent)
    time.sleep(0.01)
    with closing(SqliteInbox(path, Terms(10, 10))) as inbox:
        while inbox.purge(int(time.time() * 1000)):
            pass
        assert inbox.size().events == 0


@pytest.mark.needs("mounts")
@pytest.mark.parametrize("held", [None, 1])
def test_the_reserve_is_kept_for_a_purge_that_makes_room(path: Path, held: int | None) -> None:
    """If no event may be purged, the reserve stays, so that the next start after a kill still has it."""
    age = 10 if held else HOUR
    with closing(SqliteInbox(path, Terms(age, age, low_watermark=lambda _: held))) as inbox:
        fill(inbox, 4_000, first=1)
        time.sleep(0.02)
        for _ in range(3):
            inbox.purge(int(time.time() * 1000))
        assert path.with_name("inbox.db-reserve").stat().st_size > 0
        assert (inbox.size().events or 0) > 1000


@pytest.mark.needs("mounts")
def test_a_volume_without_room_for_the_start_is_reported_as_full(path: Path) -> None:
    """With every byte used and no reserve, the error has the reason `full` and the remedy."""
    SqliteInbox(path, Terms(HOUR, HOUR)).close()
    path.with_name("inbox.db-reserve").unlink()
    fill_every_byte(path.parent)
    with pytest.raises(InboxUnavailable, match="enlarge it") as raised:
        SqliteInbox(path, Terms(HOUR, HOUR))
    assert raised.value.reason == StorageFailure.FULL


def test_a_probe_requires_room_for_the_write_that_failed(tmp_path: Path) -> None:
    """Otherwise readiness would flap: a small probe would succeed, and the next notification fail."""
    clock = [0.0]
    probe = VolumeProbe(tmp_path, now=lambda: clock[0])
    probe.free = lambda: 0  # type: ignore[method-assign]
    probe.failed(3_000_000)
    assert probe.is_due(6_000_000)
    assert not probe.is_due(6_000_000 - 1)
    probe.trying()
    probe.failed()
    clock[0] += PROBE_INTERVAL_SECONDS - 0.1
    assert not probe.is_due(6_000_000), "a probe was tried within the interval"
    clock[0] += 0.1
    assert probe.is_due(6_000_000)
    probe.succeeded()
    assert probe.needed == PROBE_BYTES
