"""The run directory: it must belong to the service's user, and files of other users are neither deleted nor trusted."""

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

OTHER_UID = 54_321
as_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can give files to others")


def mode(directory: Path) -> int:
    return stat.S_IMODE(directory.stat().st_mode)


def test_a_missing_directory_is_created(tmp_path: Path) -> None:
    """It is private, and preparing it again changes nothing."""
    for _ in range(2):
        run_directory.prepare(tmp_path / "a" / "run")
        assert mode(tmp_path / "a" / "run") == mode(run_directory.own(tmp_path / "a" / "run")) == 0o700


def test_the_subdirectory_is_private(tmp_path: Path) -> None:
    """Even if the run directory is not, or if the subdirectory was not before."""
    run_directory.own(tmp_path).mkdir(mode=0o777)
    run_directory.own(tmp_path).chmod(0o777)
    tmp_path.chmod(0o777)
    run_directory.prepare(tmp_path)
    assert mode(run_directory.own(tmp_path)) == 0o700


def plant_link(path: Path) -> None:
    (path.parent / "elsewhere").mkdir()
    path.symlink_to(path.parent / "elsewhere")


def plant_directory(path: Path) -> None:
    path.mkdir(mode=0o777)
    os.chown(path, OTHER_UID, OTHER_UID)


def plant_file(path: Path) -> None:
    path.touch()


@pytest.mark.parametrize("in_subdirectory", [False, True], ids=["run directory", "subdirectory"])
@pytest.mark.parametrize(
    ("plant", "reason"),
    [
        (plant_link, "is a symbolic link"),
        pytest.param(plant_directory, f"belongs to uid {OTHER_UID}", marks=as_root),
        (plant_file, "is not a directory"),
    ],
)
def test_what_another_user_created_is_rejected(
    tmp_path: Path, plant: Callable[[Path], None], reason: str, *, in_subdirectory: bool
) -> None:
    """In place of the run directory or of the subdirectory; the error has the remedy."""
    run_dir = tmp_path / "run"
    if in_subdirectory:
        run_dir.mkdir()
    plant(run_directory.own(run_dir) if in_subdirectory else run_dir)
    with pytest.raises(ConfigurationError, match=reason) as raised:
        run_directory.prepare(run_dir)
    assert "Use a directory that the service's user owns" in str(raised.value)


def test_a_link_in_the_path_is_followed(tmp_path: Path) -> None:
    """Only the last component must not be a link: /var/run is usually one."""
    plant_link(tmp_path / "var")
    run_directory.prepare(tmp_path / "var" / "run")


@pytest.mark.needs("mounts")
def test_a_mount_of_another_user(tmp_path: Path) -> None:
    """It is accepted if it is writable: Kubernetes creates an emptyDir as root."""
    command = ["mount", "-t", "tmpfs", "-o", f"uid={OTHER_UID},mode=777", "tmpfs", str(tmp_path)]
    subprocess.run(command, check=True)
    try:
        run_directory.prepare(tmp_path)
        assert run_directory.own(tmp_path).stat().st_uid == os.geteuid()
    finally:
        subprocess.run(["umount", str(tmp_path)], check=True)


def test_only_metrics_files_are_deleted(tmp_path: Path) -> None:
    """Other files stay, and a link in place of the directory is not followed."""
    (tmp_path / "data").mkdir()
    for name in ("inbox.db", "counter_w0.db"):
        (tmp_path / "data" / name).touch()
    (tmp_path / "metrics").symlink_to(tmp_path / "data")
    metrics.forget_files(tmp_path / "metrics")
    assert {file.name for file in (tmp_path / "data").iterdir()} == {"inbox.db", "counter_w0.db"}
    others = {"inbox.db", "counter_w0.db.txt", "gauge.db", "xcounter_w0.db"}
    for name in (*others, "counter_w0.db", "gauge_livesum_w12.db", "histogram_w1.db"):
        (tmp_path / "metrics" / name).touch()
    metrics.forget_files(tmp_path / "metrics")
    assert {file.name for file in (tmp_path / "metrics").iterdir()} == others


@as_root
def test_a_drain_mark_of_another_user_is_ignored(tmp_path: Path) -> None:
    """So is a link to a file of the service's user."""
    run_directory.prepare(tmp_path)
    mark = run_directory.own(tmp_path) / "draining"
    drain_mark.mark(tmp_path)
    assert drain_mark.is_marked(tmp_path)
    os.chown(mark, OTHER_UID, OTHER_UID)
    assert not drain_mark.is_marked(tmp_path)
    mark.unlink()
    (tmp_path / "file").touch()
    mark.symlink_to(tmp_path / "file")
    assert not drain_mark.is_marked(tmp_path)
    drain_mark.clear(tmp_path)
    assert (tmp_path / "file").exists()


@pytest.mark.usefixtures("many_files")
def test_a_low_limit_of_open_files(tmp_path: Path) -> None:
    """With 1,024 files and 1,500 idle connections, notifications are answered, and the log has a warning."""
    command = ["bash", "-c", 'ulimit -n 1024 && exec "$@"', "bash", *Server(tmp_path).command]
    with Server(tmp_path, command=command) as server:
        idle = [server.connect() for _ in range(1500)]
        for _ in range(20):
            assert server.notify(b"{}").status == 200
        for client in idle:
            client.close()
        until(lambda: any(line["event"] == "open file limit too low" for line in server.log_lines()), "no warning")
        assert not [line for line in server.log_lines() if line["event"] == "connection not accepted"]
