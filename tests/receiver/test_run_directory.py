"""The run directory: taken only if it is ours, and nothing of others is deleted in it or believed."""

import os
import stat
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from service.errors import ConfigurationError
from service.receiver import drain_mark, run_directory
from service.telemetry import metrics
from tests.support.server import Server, until

STRANGER = 54_321
as_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can give files to others")


def mode(directory: Path) -> int:
    return stat.S_IMODE(directory.stat().st_mode)


def test_a_missing_one_is_made(tmp_path: Path) -> None:
    """For its user alone, and again without a change."""
    for _ in range(2):
        run_directory.prepare(tmp_path / "a" / "run")
        assert mode(tmp_path / "a" / "run") == mode(run_directory.own(tmp_path / "a" / "run")) == 0o700


def test_what_is_ours_is_private_below(tmp_path: Path) -> None:
    """Also if the directory itself, or what an earlier version made in it, is not."""
    run_directory.own(tmp_path).mkdir(mode=0o777)
    run_directory.own(tmp_path).chmod(0o777)
    tmp_path.chmod(0o777)
    run_directory.prepare(tmp_path)
    assert mode(run_directory.own(tmp_path)) == 0o700


def linked(path: Path) -> None:
    (path.parent / "elsewhere").mkdir()
    path.symlink_to(path.parent / "elsewhere")


def given(path: Path) -> None:
    path.mkdir(mode=0o777)
    os.chown(path, STRANGER, STRANGER)


def a_file(path: Path) -> None:
    path.touch()


@pytest.mark.parametrize("below", [False, True], ids=["itself", "below"])
@pytest.mark.parametrize(
    ("plant", "why"),
    [
        (linked, "is a symbolic link"),
        pytest.param(given, f"belongs to uid {STRANGER}", marks=as_root),
        (a_file, "is not a directory"),
    ],
)
def test_what_a_stranger_planted_is_refused(
    tmp_path: Path, plant: Callable[[Path], None], why: str, *, below: bool
) -> None:
    """In its place, or in the place of the subdirectory; the remedy is said."""
    run_dir = tmp_path / "run"
    if below:
        run_dir.mkdir()
    plant(run_directory.own(run_dir) if below else run_dir)
    with pytest.raises(ConfigurationError, match=why) as raised:
        run_directory.prepare(run_dir)
    assert "Name a directory of the service's user" in str(raised.value)


def test_a_link_on_the_way_is_followed(tmp_path: Path) -> None:
    """Only the last component may not be one: /var/run is a link everywhere."""
    linked(tmp_path / "var")
    run_directory.prepare(tmp_path / "var" / "run")


@pytest.mark.needs("mounts")
def test_a_mount_of_somebody_else(tmp_path: Path) -> None:
    """Is taken if we can write it: Kubernetes makes an emptyDir as root."""
    command = ["mount", "-t", "tmpfs", "-o", f"uid={STRANGER},mode=777", "tmpfs", str(tmp_path)]
    subprocess.run(command, check=True)
    try:
        run_directory.prepare(tmp_path)
        assert run_directory.own(tmp_path).stat().st_uid == os.geteuid()
    finally:
        subprocess.run(["umount", str(tmp_path)], check=True)


def test_only_files_of_metrics_are_removed(tmp_path: Path) -> None:
    """At a start; a link in their directory's place is not followed."""
    (tmp_path / "data").mkdir()
    for name in ("inbox.db", "counter_w0.db"):
        (tmp_path / "data" / name).touch()
    (tmp_path / "metrics").symlink_to(tmp_path / "data")
    metrics.forget_files(tmp_path / "metrics")
    assert {file.name for file in (tmp_path / "data").iterdir()} == {"inbox.db", "counter_w0.db"}
    kept = {"inbox.db", "counter_w0.db.txt", "gauge.db", "xcounter_w0.db"}
    for name in (*kept, "counter_w0.db", "gauge_livesum_w12.db", "histogram_w1.db"):
        (tmp_path / "metrics" / name).touch()
    metrics.forget_files(tmp_path / "metrics")
    assert {file.name for file in (tmp_path / "metrics").iterdir()} == kept


@as_root
def test_a_drain_mark_of_a_stranger_is_none(tmp_path: Path) -> None:
    """Nor a link to a file of ours."""
    run_directory.prepare(tmp_path)
    mark = run_directory.own(tmp_path) / "draining"
    drain_mark.mark(tmp_path)
    assert drain_mark.is_marked(tmp_path)
    os.chown(mark, STRANGER, STRANGER)
    assert not drain_mark.is_marked(tmp_path)
    mark.unlink()
    (tmp_path / "file").touch()
    mark.symlink_to(tmp_path / "file")
    assert not drain_mark.is_marked(tmp_path)
    drain_mark.clear(tmp_path)
    assert (tmp_path / "file").exists()


@pytest.mark.usefixtures("many_files")
def test_a_limit_of_files_leaves_room_for_honest_connections(tmp_path: Path) -> None:
    """1,024 files and 1,500 connections that ask for nothing: notifications are answered, and the log says why."""
    command = ["bash", "-c", 'ulimit -n 1024 && exec "$@"', "bash", *Server(tmp_path).command]
    with Server(tmp_path, command=command) as server:
        idle = [server.connect() for _ in range(1500)]
        for _ in range(20):
            assert server.notify(b"{}").status == 200
        for client in idle:
            client.close()
        until(lambda: any(line["event"] == "too few open files" for line in server.log_lines()), "not said")
        assert not [line for line in server.log_lines() if line["event"] == "connection not accepted"]
