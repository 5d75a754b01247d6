"""`make release` writes the version everywhere, and dates the changelog; tried on a copy."""

import importlib.util
import re
import shutil
import subprocess
from datetime import date
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
SPEC = importlib.util.spec_from_file_location("release", ROOT / "deploy" / "release.py")
assert SPEC is not None
assert SPEC.loader is not None
release = importlib.util.module_from_spec(SPEC)
SPEC.loader.exec_module(release)
TODAY = date(2026, 12, 24)


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    for name in (*release.FILES, "CHANGELOG.md"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / name, tmp_path / name)
    return tmp_path


def test_every_file_gets_the_version(copy: Path) -> None:
    """And the changes get a date; the next ones have a section."""
    release.prepare(copy, "7.8.9", TODAY)
    assert release.current(copy) == "7.8.9"
    for name in release.FILES:
        assert "7.8.9" in (copy / name).read_text()
        assert release.current(ROOT) not in (copy / name).read_text(), name
    changelog = (copy / "CHANGELOG.md").read_text()
    assert "## Unreleased\n\n## 7.8.9 (2026-12-24)\n\n### Receive\n" in changelog


def test_no_other_file_names_the_version() -> None:
    """Else a release would leave it behind: tests and generated files read it from the package."""
    listed = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=False).stdout.split()
    names = [name for name in listed if not name.endswith((".lock", ".png", ".json"))]
    version = re.compile(rf"(?<![0-9.]){re.escape(release.current(ROOT))}(?![0-9.])")
    found = {name for name in names if version.search((ROOT / name).read_text(errors="ignore"))}
    assert found - set(release.FILES) <= {"tests/chart/golden.yaml"}


@pytest.mark.parametrize("version", ["1.2", "v1.2.3", "1.2.3+x", ""])
def test_what_is_no_version(copy: Path, version: str) -> None:
    """Is refused, and nothing is written."""
    with pytest.raises(SystemExit, match="is not a version"):
        release.prepare(copy, version, TODAY)
    assert release.current(copy) == release.current(ROOT)


def test_a_release_needs_changes(copy: Path) -> None:
    """It is refused without any, and a second time."""
    release.prepare(copy, "7.8.9", TODAY)
    with pytest.raises(SystemExit, match="nothing under"):
        release.prepare(copy, "7.9.0", TODAY)
    with pytest.raises(SystemExit, match=r"a section for 7\.8\.9 already"):
        release.prepare(copy, "7.8.9", TODAY)
