"""The container image, as its builder saved it."""

import json
import os
import tarfile
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import Any

import pytest

pytestmark = pytest.mark.needs("image")
MAX_ADDED_BYTES = 130_000_000  # what the image may add to its base image


class Image:
    """A docker-archive: its configuration, the size of the layers added to its base, and the files of all layers."""

    def __init__(self, archive: tarfile.TarFile) -> None:
        (manifest,) = json.load(_member(archive, "manifest.json"))
        self.config: dict[str, Any] = json.load(_member(archive, manifest["Config"]))["config"]
        self.files: dict[PurePosixPath, tarfile.TarInfo] = {}
        self.added = 0
        for layer in manifest["Layers"]:
            with tarfile.open(fileobj=_member(archive, layer)) as layer_archive:
                names = self._apply(layer_archive)
            if self.added or PurePosixPath("opt/venv") in names:
                self.added += archive.getmember(layer).size

    def _apply(self, layer: tarfile.TarFile) -> set[PurePosixPath]:
        members = {PurePosixPath(member.name): member for member in layer}
        for path in members:
            if path.name.startswith(".wh."):
                deleted = path.with_name(path.name.removeprefix(".wh."))
                self.files = {name: file for name, file in self.files.items() if not name.is_relative_to(deleted)}
        self.files |= members
        return set(members)


def _member(archive: tarfile.TarFile, name: str) -> Any:
    file = archive.extractfile(name)
    assert file
    return file


@pytest.fixture(scope="module")
def image() -> Iterator[Image]:
    with tarfile.open(Path(os.environ["TEST_IMAGE_ARCHIVE"])) as archive:
        yield Image(archive)


def test_it_is_small(image: Image) -> None:
    """The layers on top of the base image, which other images share."""
    print(f"the image adds {image.added / 1e6:.1f} MB to its base")
    assert 0 < image.added <= MAX_ADDED_BYTES


def test_user_and_entry_point(image: Image) -> None:
    """It does not run as root, and the program itself is the first process, so it gets the signals."""
    assert image.config["User"] == "10001:10001"
    assert (image.config["Entrypoint"], image.config["Cmd"]) == (["whatsapp-webhook"], ["serve"])
    names = {name.removeprefix("org.opencontainers.image.") for name in image.config["Labels"]}
    assert {"title", "description", "licenses", "version", "base.name"} <= names
    for directory in ("var/lib/whatsapp-webhook", "run/whatsapp-webhook"):
        member = image.files[PurePosixPath(directory)]
        assert (member.uid, member.gid, member.mode & 0o777) == (10001, 10001, 0o700)


def test_it_has_no_build_or_install_tools(image: Image) -> None:
    """No compiler, no pip, no cache, and no file of ours that its user may write."""
    programs = {path.name for path in image.files if path.parent.name in ("bin", "sbin")}
    assert "whatsapp-webhook" in programs
    assert not programs & {"pip", "pip3", "gcc", "cc", "g++", "c++", "make", "git", "curl", "wget", "uv"}
    packages = [path for path in image.files if path.parent.name in ("site-packages", "dist-packages")]
    assert not [path for path in packages if path.name.startswith(("pip", "ensurepip", "setuptools"))]
    assert not [path for path in image.files if path.match("root/.cache/*") or path.match("src/*")]
    ours = [it for path, it in image.files.items() if path.is_relative_to("opt/venv")]
    assert len(ours) > 1000
    assert not [it.name for it in ours if it.uid or (it.mode & 0o022 and not it.issym())]
