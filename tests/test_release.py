"""`make release` writes the version everywhere, and dates the changelog; tried on a copy."""

import json
import re
import shutil
import subprocess
from datetime import date
from pathlib import Path

import pytest
import yaml
from release import chart, sbom
from release import prepare as release
from release import publish as publishing
from release.target import Target

ROOT = Path(__file__).parent.parent
TODAY = date(2026, 12, 24)


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    for name in (*release.FILES, "CHANGELOG.md", "docs/upgrading.md"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / name, tmp_path / name)
    (tmp_path / "docs/upgrading.md").write_text("# Notes\n\n## Unreleased\n\nBack up.\n")
    changelog = tmp_path / "CHANGELOG.md"
    changelog.write_text(changelog.read_text().replace("## Unreleased\n", "## Unreleased\n\n- One\n- Two\n  lines.\n"))
    return tmp_path


def test_every_file_gets_the_version(copy: Path) -> None:
    """And the changes get a date; the next ones have a section."""
    release.prepare(copy, "7.8.9", TODAY)
    assert release.current(copy) == "7.8.9"
    for name in release.FILES:
        assert "7.8.9" in (copy / name).read_text()
        assert release.current(ROOT) not in (copy / name).read_text(), name
    changelog = (copy / "CHANGELOG.md").read_text()
    assert "## Unreleased\n\n## 7.8.9 (2026-12-24)\n\n- One\n" in changelog


def test_no_other_file_names_the_version() -> None:
    """Else a release would leave it behind: tests and generated files read it from the package."""
    listed = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=False).stdout.split()
    names = [name for name in listed if not name.endswith((".lock", ".png", ".json"))]
    version = re.compile(rf"(?<![0-9.]){re.escape(release.current(ROOT))}(?![0-9.])")
    found = {name for name in names if version.search((ROOT / name).read_text(errors="ignore"))}
    assert found - set(release.FILES) <= {"tests/chart/golden.yaml", "CHANGELOG.md", "docs/upgrading.md"}


def test_the_upgrade_notes_are_in_order() -> None:
    """Those of the next version first, then the newest."""
    page = (ROOT / "docs/upgrading.md").read_text()
    assert re.findall(r"^## (.*)$", page, re.MULTILINE)[0] == "Unreleased"
    versions = re.findall(r"^## ([0-9.]+)$", page, re.MULTILINE)
    assert versions == sorted(versions, key=lambda each: [-int(number) for number in each.split(".")])


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


def test_a_release_needs_upgrade_notes(copy: Path) -> None:
    """They get the version, and the next ones a section; those of a release candidate wait for the final one."""
    notes = copy / "docs/upgrading.md"
    release.prepare(copy, "7.8.9-rc.1", TODAY)
    assert notes.read_text() == "# Notes\n\n## Unreleased\n\nBack up.\n"
    release.prepare(copy, "7.8.9", TODAY)
    assert notes.read_text() == "# Notes\n\n## Unreleased\n\nNothing.\n\n## 7.8.9\n\nBack up.\n"
    notes.write_text("# Notes\n")
    (copy / "CHANGELOG.md").write_text("## Unreleased\n\n- Three\n")
    with pytest.raises(SystemExit, match=r"docs/upgrading\.md has no section"):
        release.prepare(copy, "7.9.0", TODAY)


def test_a_final_version_has_the_changes_of_its_candidates(copy: Path) -> None:
    """Under one heading, and what came after them too."""
    changelog = copy / "CHANGELOG.md"
    for version in ("7.8.9-rc.1", "7.8.9-rc.2", "7.8.9"):
        changelog.write_text(changelog.read_text().replace("## Unreleased\n", f"## Unreleased\n\n- For {version}\n"))
        release.prepare(copy, version, TODAY)
    changes = chart.changes("7.8.9 (", changelog.read_text())
    assert changes[:5] == ["For 7.8.9", "For 7.8.9-rc.2", "For 7.8.9-rc.1", "One", "Two lines."]
    assert "rc" not in "".join(re.findall(r"^## .*", changelog.read_text(), re.MULTILINE))


DIGEST = "sha256:" + "0123456789abcdef" * 4
SOURCE = "https://github.com/Example/whatsapp-webhook"


@pytest.mark.needs("helm")
def test_the_published_chart_names_the_image_by_digest(tmp_path: Path) -> None:
    """Nothing else changes in its values, and Artifact Hub gets the changes, the image and links of this version."""
    version, image = release.current(ROOT), "ghcr.io/example/whatsapp-webhook"
    to = Target(image, DIGEST, "ghcr.io/example/charts", version, SOURCE, tmp_path, "", is_rehearsal=False)
    package = chart.package(to, ['One: "quoted"'])
    shutil.unpack_archive(package, tmp_path)
    values = yaml.safe_load((tmp_path / "whatsapp-webhook" / "values.yaml").read_text())
    original = yaml.safe_load((ROOT / "deploy/helm/values.yaml").read_text())
    assert values == original | {"image": original["image"] | {"digest": DIGEST, "repository": image}}
    readme = (tmp_path / "whatsapp-webhook" / "README.md").read_text()
    assert (
        f"\nhelm install wh oci://ghcr.io/example/charts/whatsapp-webhook --version {version} --namespace whatsapp"
        in readme
    )
    assert "../" not in readme
    assert f"({SOURCE}/blob/v{version}/docs/runbook.md)" in readme
    about = yaml.safe_load((tmp_path / "whatsapp-webhook" / "Chart.yaml").read_text())
    assert about["home"] == SOURCE
    hub = {name.removeprefix("artifacthub.io/"): text for name, text in about["annotations"].items()}
    assert hub["license"] == "Apache-2.0"
    assert json.loads(hub["changes"]) == ['One: "quoted"']
    assert json.loads(hub["images"])[0]["image"] == f"{image}:{version}@{DIGEST}"
    assert hub["prerelease"] == str("-" in version).lower()
    pages = [about["icon"], *(each["url"] for name in ("links", "screenshots") for each in json.loads(hub[name]))]
    for page in pages:
        path = re.sub(r"^https://[^/]+/Example/whatsapp-webhook/(blob/)?v[^/]+/", "", page)
        assert (ROOT / path).is_file(), page


def test_the_changes_are_those_of_the_version(copy: Path) -> None:
    """Each item of the section on one line."""
    release.prepare(copy, "7.8.9", TODAY)
    text = (copy / "CHANGELOG.md").read_text()
    changes = chart.changes("7.8.9 (", text)
    assert changes[:2] == ["One", "Two lines."]
    assert not [each for each in changes if "\n" in each or each.startswith("#")]
    assert not chart.changes("Unreleased", text)
    with pytest.raises(SystemExit, match=r"has no section `## 9\.9\.9 \("):
        chart.changes("9.9.9 (", text)


@pytest.mark.parametrize(
    ("components", "expected"),
    [
        ({"whatsapp-webhook": "1", "falcon": "4.4.0", "zope_event": "6.2"}, []),
        ({"whatsapp-webhook": "1", "falcon": "4.3.0"}, ["falcon 4.3.0"]),
        ({"whatsapp-webhook": "1", "falcon": "4.4.0", "stranger": "1"}, ["stranger 1"]),
        ({"whatsapp-webhook": "1"}, ["no falcon"]),
        ({"falcon": "4.4.0"}, ["no whatsapp-webhook"]),
    ],
)
def test_a_bill_of_other_packages_than_the_lock_is_refused(components: dict[str, str], expected: list[str]) -> None:
    """Those of the base image do not count."""
    lock = 'falcon==4.4.0 \\\n    --hash=sha256:1\nzope-event==6.2 ; sys_platform == "linux"\n'
    bill = [
        {
            "name": name,
            "version": version,
            "properties": [{"name": "syft:location:0:path", "value": f"/opt/venv/{name}"}],
        }
        for name, version in components.items()
    ]
    base = {
        "name": "wheel",
        "version": "1",
        "properties": [{"name": "syft:location:0:path", "value": "/usr/lib/wheel"}],
    }
    assert sbom.differences({"components": [*bill, base, {"name": "a file"}]}, lock) == expected


def test_a_tag_that_is_not_the_version_is_refused(copy: Path) -> None:
    """And one of a version that was not prepared: before anything is built."""
    with pytest.raises(SystemExit, match=r"the tag is v9\.9\.9, but pyproject\.toml has the version"):
        release.check(copy, "v9.9.9")
    release.prepare(copy, "7.8.9", TODAY)
    release.check(copy, "v7.8.9")
    (copy / "CHANGELOG.md").write_text("# Changelog\n")
    with pytest.raises(SystemExit, match=r"CHANGELOG\.md has no section for 7\.8\.9"):
        release.check(copy, "v7.8.9")


def test_the_notes_of_a_release_verify_it(tmp_path: Path) -> None:
    """They name what was published by digest, and whose signature to expect."""
    target = ("ghcr.io/e/w", DIGEST, "ghcr.io/e/charts", "7.8.9", SOURCE, tmp_path, "")
    to = Target(*target, is_rehearsal=False)
    notes = publishing._notes(to, ["One"], {"image": f"ghcr.io/e/w@{DIGEST}", "chart": f"ghcr.io/e/charts/w@{DIGEST}"})
    assert notes.startswith("- One\n")
    assert notes.count(f"--certificate-identity {SOURCE}/.github/workflows/release.yml@refs/tags/v7.8.9 ") == 2
    verify_image, verify_chart, install = notes.partition("```sh\n")[2].removesuffix("\n```\n").splitlines()
    assert verify_image.endswith(f" ghcr.io/e/w@{DIGEST}")
    assert verify_chart.endswith(f" ghcr.io/e/charts/w@{DIGEST}")
    assert install.startswith(f"helm install wh oci://ghcr.io/e/charts/w@{DIGEST} ")
