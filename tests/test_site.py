"""`make check` builds the documentation: a dead link or a page that nobody finds fails it."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent


@pytest.fixture
def copied(tmp_path: Path) -> Path:
    shutil.copytree(ROOT / "docs", tmp_path / "docs")
    shutil.copy(ROOT / "mkdocs.yml", tmp_path)
    return tmp_path


def build(directory: Path) -> subprocess.CompletedProcess[str]:
    """Build the site as `make check` does."""
    command = [str(Path(sys.executable).with_name("mkdocs")), "build"]
    environment = os.environ | {"NO_MKDOCS_2_WARNING": "1"}
    return subprocess.run(command, cwd=directory, env=environment, capture_output=True, text=True, check=False)


def test_the_site_is_built(copied: Path) -> None:
    """Without a warning."""
    done = build(copied)
    assert done.returncode == 0, done.stderr
    assert "WARNING" not in done.stderr


@pytest.mark.parametrize(
    ("page", "text", "complaint"),
    [
        ("glossary.md", "\n[more](nowhere.md)\n", "'nowhere.md', but the target is not found"),
        ("glossary.md", "\n[more](runbook.md#nothing)\n", "does not contain an anchor '#nothing'"),
        ("glossary.md", "\n[more](#nothing)\n", "there is no such anchor on this page"),
        ("lonely.md", "# Lonely\n", 'not included in the "nav" configuration'),
    ],
)
def test_a_fault_fails_the_build(copied: Path, page: str, text: str, complaint: str) -> None:
    """A dead link, a dead anchor of another page or the same one, a page outside the navigation."""
    with (copied / "docs" / page).open("a") as file:
        file.write(text)
    done = build(copied)
    assert done.returncode == 1
    assert complaint in done.stderr
