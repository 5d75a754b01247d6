"""The image, as its builder saved it."""

import json
import os
import tarfile
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import Any

import pytest

pytestmark = pytest.mark.needs("image")
MOST = 130_000_000  # bytes that it may add to its base


class Image:
    """A docker-archive: its configuration, the layers that it adds to its base, and what is in all of them."""

    def __init__(self, archive: tarfile.TarFile) -> None:
        (manifest,) = json.load(_member(archive, "manifest.json"))
        self.config: dict[str, Any] = json.load(_member(archive, manifest["Config"]))["config"]
        self.files: dict[PurePosixPath, tarfile.TarInfo] = {}
        self.added = 0
        for layer in manifest["Layers"]:
            with tarfile.open(fileobj=_member(archive, layer)) as found:
                names = self._apply(found)
            if self.added or PurePosixPath("opt/venv") in names:
                self.added += archive.getmember(layer).size

    def _apply(self, layer: tarfile.TarFile) -> set[PurePosixPath]:
        members = {PurePosixPath(member.name): member for member in layer}
        for path in members:
            if path.name.startswith(".wh."):
                gone = path.with_name(path.name.removeprefix(".wh."))
                self.files = {kept: it for kept, it in self.files.items() if not kept.is_relative_to(gone)}
        self.files |= members
        return set(members)


def _member(archive: tarfile.TarFile, name: str) -> Any:
    found = archive.extractfile(name)
    assert found
    return found


@pytest.fixture(scope="module")
def image() -> Iterator[Image]:
    with tarfile.open(Path(os.environ["TEST_IMAGE_ARCHIVE"])) as archive:
        yield Image(archive)


def test_it_is_small(image: Image) -> None:
    """What the reader pulls beside a base that others share."""
    print(f"the image adds {image.added / 1e6:.1f} MB to its base")
    assert 0 < image.added <= MOST


def test_who_it_runs_as_and_what(image: Image) -> None:
    """No root; the program itself is the first process, so that it gets the signals."""
    assert image.config["User"] == "10001:10001"
    assert (image.config["Entrypoint"], image.config["Cmd"]) == (["whatsapp-webhook"], ["serve"])
    names = {name.removeprefix("org.opencontainers.image.") for name in image.config["Labels"]}
    assert {"title", "description", "licenses", "version", "base.name"} <= names
    for directory in ("var/lib/whatsapp-webhook", "run/whatsapp-webhook"):
        found = image.files[PurePosixPath(directory)]
        assert (found.uid, found.gid, found.mode & 0o777) == (10001, 10001, 0o700)


def test_nothing_in_it_builds_or_installs(image: Image) -> None:
    """No compiler, no pip and no cache; nothing of ours that its user may write."""
    programs = {path.name for path in image.files if path.parent.name in ("bin", "sbin")}
    assert "whatsapp-webhook" in programs
    assert not programs & {"pip", "pip3", "gcc", "cc", "g++", "c++", "make", "git", "curl", "wget", "uv"}
    packages = [path for path in image.files if path.parent.name in ("site-packages", "dist-packages")]
    assert not [path for path in packages if path.name.startswith(("pip", "ensurepip", "setuptools"))]
    assert not [path for path in image.files if path.match("root/.cache/*") or path.match("src/*")]
    ours = [it for path, it in image.files.items() if path.is_relative_to("opt/venv")]
    assert len(ours) > 1000
    assert not [it.name for it in ours if it.uid or (it.mode & 0o022 and not it.issym())]
