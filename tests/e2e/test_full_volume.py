"""A volume that is full: 503 with what is needed, a start that needs no room, and ready again by itself."""

import os
import re
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from service.meta import catalogue
from service.outcomes import StorageFailure
from service.storage.sqlite.volume import PROBE_BYTES
from tests.support.server import Server, until

VOLUME_BYTES = 32 * 2**20
GROWN_WITHIN = 5.0  # seconds


@contextmanager
def tmpfs(where: Path) -> Iterator[Callable[[], None]]:
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={VOLUME_BYTES}", "tmpfs", str(where)], check=True)
    try:
        yield lambda: _run("mount", "-o", f"remount,size={3 * VOLUME_BYTES}", str(where))
    finally:
        _run("umount", "-l", str(where))


@contextmanager
def ext4(where: Path) -> Iterator[Callable[[], None]]:
    image = where.with_name("image")
    with image.open("wb") as made:
        made.truncate(VOLUME_BYTES)
    _run("mkfs.ext4", "-q", "-F", "-m", "5", str(image))
    _run("mount", "-o", "loop", str(image), str(where))
    try:
        yield (where / "filler").unlink  # a file system in use can't be resized everywhere
    finally:
        _run("umount", "-l", str(where))


VOLUMES = {"tmpfs": tmpfs, "ext4": ext4}


class Volume:
    """A small volume with an inbox on it, that can be filled, and given room."""

    def __init__(self, where: Path, grow: Callable[[], None]) -> None:
        self.where = where
        self.grow = grow
        self.url = f"sqlite://{where}/inbox.db"

    def fill(self) -> None:
        """Take every byte that is left, but not what the inbox kept aside."""
        with (self.where / "filler").open("ab", buffering=0) as filler:
            for size in (2**16, 512, 1):
                try:
                    while filler.write(bytes(size)):
                        pass
                except OSError:
                    continue

    def free(self) -> int:
        found = os.statvfs(self.where)
        return found.f_bavail * found.f_frsize


@pytest.fixture(
    params=[
        pytest.param("tmpfs", marks=pytest.mark.needs("mounts")),
        pytest.param("ext4", marks=pytest.mark.needs("loop")),
    ]
)
def volume(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Volume]:
    where = tmp_path / "volume"
    where.mkdir()
    with VOLUMES[request.param](where) as grow:
        yield Volume(where, grow)


def fill_up(server: Server, volume: Volume) -> int:
    """Fill the volume, and send until an answer is 503; return how many events were stored."""
    stored = 0
    for _ in range(3):
        assert server.notify(catalogue.batch(1000)).status == 200
        stored += 1000
    volume.fill()
    for _ in range(3000):
        if server.notify(catalogue.batch(100)).status != 200:
            return stored
        stored += 100
    raise AssertionError("it never was full")


def lines(server: Server, *names: str) -> list[str]:
    return [line["event"] for line in server.log_lines() if line["event"] in names]


def test_a_full_volume_and_a_larger_one(tmp_path: Path, volume: Volume) -> None:
    """503 and not ready, without flapping; one line for the failure and one for the recovery; ready within 5 s."""
    with Server(tmp_path, WEBHOOK_INBOX=volume.url) as server:
        stored = fill_up(server, volume)
        over = time.monotonic() + 7
        while time.monotonic() < over:
            answer = server.notify(catalogue.batch(300))
            assert (answer.status, answer.headers.get("retry-after")) == (503, "5")
            ready = server.admin("/readyz")
            assert ready.status == 503
            time.sleep(0.3)
        needed = re.search(rb"(\d+) bytes are needed and (\d+) are free", ready.body)
        assert needed, ready.body
        assert int(needed[1]) >= max(PROBE_BYTES, int(needed[2]))
        assert b"no restart is needed" in ready.body
        assert b"none of its events is older than the retention (8 days)" in ready.body
        assert server.admin("/livez").status == 200
        assert lines(server, "inbox unavailable", "inbox ready") == ["inbox ready", "inbox unavailable"]
        volume.grow()
        grown = time.monotonic()
        until(lambda: server.admin("/readyz").status == 200, "not ready by itself")
        assert time.monotonic() - grown < GROWN_WITHIN
        assert server.notify(catalogue.batch(300)).status == 200
        assert lines(server, "inbox unavailable", "inbox ready") == ["inbox ready", "inbox unavailable", "inbox ready"]
        assert len(server.kept()) == stored + 300


def test_a_start_on_a_full_volume(tmp_path: Path, volume: Volume) -> None:
    """It opens the inbox, again and again, says what is needed, and recovers by itself."""
    with Server(tmp_path, WEBHOOK_INBOX=volume.url) as server:
        stored = fill_up(server, volume)
        for starts in (2, 3, 4):  # the room that was kept aside is used up by then
            server.kill()  # what is in the WAL was not taken in
            volume.fill()
            server.start()
            until(lambda starts=starts: len(lines(server, "inbox opened")) == starts, "it is not opened")
            assert len(server.kept()) == stored
            while server.notify(catalogue.batch(1000)).status == 200:
                stored += 1000
            until(lambda: b"is full" in server.admin("/readyz").body, "it does not say so")
        volume.grow()
        grown = time.monotonic()
        server.wait_until_ready()
        assert time.monotonic() - grown < GROWN_WITHIN
        assert server.notify(catalogue.batch(1000)).status == 200
        assert len(server.kept()) == stored + 1000


@pytest.mark.parametrize("killed", [True, False], ids=["killed", "stopped"])
def test_a_shorter_retention_makes_room(tmp_path: Path, volume: Volume, killed: bool) -> None:  # noqa: FBT001
    """On a volume without a free byte: what is too old is purged, and its pages take what comes."""
    with Server(tmp_path, WEBHOOK_INBOX=volume.url) as server:
        fill_up(server, volume)
        if killed:
            server.kill()
        else:
            server.stop()
        volume.fill()
        time.sleep(1)
        server.environ |= {"WEBHOOK_RETENTION": "1s", "WEBHOOK_BODY_RETENTION": "1s"}
        server.start()
        server.wait_until_ready()
        ready = [line for line in server.log_lines() if line["event"] == "inbox ready"][-1]["timestamp"]
        for _ in range(20):
            until(lambda: server.notify(catalogue.batch(100)).status == 200, "a slow disk, but not for so long")
        after = [line for line in server.log_lines() if line["timestamp"] > ready]
        assert StorageFailure.FULL not in [line.get("reason") for line in after]
        assert (volume.where / "filler").stat().st_size > 2**20


def test_a_retention_that_a_relay_holds_back_is_said(tmp_path: Path, volume: Volume) -> None:
    """Not the age of its events, but who still needs them."""
    with Server(tmp_path, WEBHOOK_INBOX=volume.url) as server:
        (tmp_path / "secret").write_text("0123456789abcdef")
        (tmp_path / "destinations.yaml").write_text(
            "destinations: [{name: app, url: 'http://127.0.0.1:1/', internal: true, format: meta, secretFile: secret, "
            "from: beginning}]"
        )
        relay = Server(
            tmp_path / "relay",
            command=[*server.command[:-1], "relay"],
            **server.environ | {"WEBHOOK_DESTINATIONS": str(tmp_path / "destinations.yaml")},
        )
        (tmp_path / "relay").mkdir()
        relay.environ["WEBHOOK_RELAY_BIND"] = f"127.0.0.1:{relay.admin_port}"
        relay.port = relay.admin_port
        relay.start()
        server.notify(catalogue.batch(10))
        until((volume.where / "relay.db").exists, "no relay")
        time.sleep(1)
        relay.stop()
        server.stop()
        server.environ |= {"WEBHOOK_RETENTION": "1s", "WEBHOOK_BODY_RETENTION": "1s"}
        server.start()
        server.wait_until_ready()
        fill_up(server, volume)
        until(lambda: b"the relay has not delivered the events after position" in server.admin("/readyz").body, "?")


def _run(*command: str) -> None:
    subprocess.run(command, check=True, capture_output=True)
