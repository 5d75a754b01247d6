"""Prepares a release, for `make release VERSION=1.2.3`: the version in each file that names it, and the changelog.

The version of pyproject.toml is the one that counts; the others follow it.
"""

import re
import sys
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).parents[2]
VERSION: Final = re.compile(r"[0-9]+\.[0-9]+\.[0-9]+(-rc\.[0-9]+)?")
# The files that name the version, with the text before it.
FILES: Final = {
    "pyproject.toml": ('version = "',),
    "deploy/helm/Chart.yaml": ("version: ", 'appVersion: "'),
    "Dockerfile": ("whatsapp-webhook:", 'image.version="'),
    "README.md": ("whatsapp-webhook:",),
    "docs/vm.md": ("VERSION=", "whatsapp-webhook:"),
    "docs/vm/compose.yaml": ("whatsapp-webhook:",),
    "docs/examples/deploy/values-production.yaml": ('tag: "',),
    "docs/examples/deploy/flux.yaml": ("tag: v",),
    "docs/examples/deploy/argocd.yaml": ("targetRevision: v",),
}


def current(root: Path) -> str:
    """Return the version of pyproject.toml."""
    match = re.search(r'^version = "(.*)"$', (root / "pyproject.toml").read_text(), re.MULTILINE)
    if match is None:
        raise SystemExit("pyproject.toml has no line `version = ...`")
    return match[1]


def prepare(root: Path, version: str, today: date) -> None:
    """Write *version* into each file, and date the changelog's section; raises SystemExit with what is wrong."""
    before = current(root)
    if not VERSION.fullmatch(version):
        raise SystemExit(f"{version!r} is not a version: write it as 1.2.3 or 1.2.3-rc.1")
    changelog = (root / "CHANGELOG.md").read_text()
    if f"## {version} " in changelog:
        raise SystemExit(f"CHANGELOG.md has a section for {version} already")
    head, _, changes = _of_release_candidates(changelog, version).partition("## Unreleased\n")
    if not changes.partition("\n## ")[0].strip():
        raise SystemExit("CHANGELOG.md has nothing under `## Unreleased`")
    notes = (root / "docs/upgrading.md").read_text()
    if "\n## Unreleased\n" not in notes:
        raise SystemExit("docs/upgrading.md has no section `## Unreleased`: write what users must know, or `Nothing.`")
    for name, prefixes in FILES.items():
        text = (root / name).read_text()
        for prefix in prefixes:
            old, text = text, text.replace(f"{prefix}{before}", f"{prefix}{version}")
            if old == text and before != version:
                raise SystemExit(f"{name}: {prefix}{before} was not found")
        (root / name).write_text(text)
    (root / "CHANGELOG.md").write_text(f"{head}## Unreleased\n\n## {version} ({today.isoformat()})\n{changes}")
    if "-" not in version:
        notes = notes.replace("\n## Unreleased\n", f"\n## Unreleased\n\nNothing.\n\n## {version}\n")
        (root / "docs/upgrading.md").write_text(notes)


def _of_release_candidates(changelog: str, version: str) -> str:
    """Move the changes of the release candidates of a final version to those that are not released."""
    return changelog if "-" in version else re.sub(rf"\n## {re.escape(version)}-rc\S* \(.*\)\n", "", changelog)


def check(root: Path, tag: str) -> None:
    """Check that a tag names the version of its commit, and that the version is prepared; raises SystemExit."""
    version = current(root)
    if tag != f"v{version}":
        raise SystemExit(f"the tag is {tag}, but pyproject.toml has the version {version}")
    if f"\n## {version} (" not in (root / "CHANGELOG.md").read_text():
        raise SystemExit(f"CHANGELOG.md has no section for {version}: make release VERSION={version} writes it")


if __name__ == "__main__":
    if sys.argv[1] == "--check":
        check(ROOT, sys.argv[2])
    else:
        prepare(ROOT, sys.argv[1], datetime.now(UTC).date())
