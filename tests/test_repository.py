"""The files that the hosting platform and editors read: forms for issues, updates of dependencies, hooks."""

import re
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).parent.parent
FORMS = sorted((ROOT / ".github/ISSUE_TEMPLATE").glob("*.yml"))
MANIFESTS = {
    "pip": "pyproject.toml",
    "docker": "Dockerfile",
    "npm": "package.json",
    "github-actions": ".github/workflows/ci.yml",
}


def read(path: str | Path) -> dict[str, Any]:
    document: dict[str, Any] = yaml.safe_load((ROOT / path).read_text())
    return document


@pytest.mark.parametrize("path", FORMS, ids=lambda path: str(path.name))
def test_a_form_is_valid(path: Path) -> None:
    """It has what the platform requires: a name, a description, and a label and a unique id for each question."""
    form = read(path)
    assert form.keys() >= {"name", "description", "body"}
    questions = [each for each in form["body"] if each["type"] != "markdown"]
    assert all(each["type"] in ("input", "textarea", "dropdown", "checkboxes") for each in questions)
    assert all(each["attributes"]["label"] for each in questions)
    assert len({each["id"] for each in questions}) == len(questions) > 0


def test_a_bug_report_asks_for_no_personal_data() -> None:
    """The form says so before the first question."""
    first = read(".github/ISSUE_TEMPLATE/bug.yml")["body"][0]
    assert "Do not paste tokens, secrets, phone numbers" in first["attributes"]["value"]


def test_dependencies_are_updated_where_they_are_declared() -> None:
    """Each directory has the file that its ecosystem reads."""
    updates = read(".github/dependabot.yml")["updates"]
    assert {each["package-ecosystem"] for each in updates} == MANIFESTS.keys()
    for each in updates:
        directory = ROOT / each["directory"].strip("/")
        assert (directory / MANIFESTS[each["package-ecosystem"]]).is_file(), each


def test_the_hooks_run_what_make_check_runs() -> None:
    """With the programs of .venv, so that there is one version of each."""
    checks = re.findall(r"^\t\$\(BIN\)/(\S.*)$", (ROOT / "Makefile").read_text(), re.MULTILINE)
    (repository,) = read(".pre-commit-config.yaml")["repos"]
    for hook in repository["hooks"]:
        assert hook["entry"].removeprefix(".venv/bin/") in checks
        assert hook["pass_filenames"] is False, "the files that are excluded would be checked"


WORKFLOWS = sorted((ROOT / ".github/workflows").glob("*.yml"))


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: str(path.name))
def test_a_workflow_runs_only_what_was_reviewed(path: Path) -> None:
    """Each action is pinned to a commit, with its version beside it; a job has only the permissions that it names."""
    text = path.read_text()
    used = re.findall(r"^ +- uses: (.*)$", text, re.MULTILINE)
    assert used
    assert [each for each in used if not re.fullmatch(r"[\w./-]+@[0-9a-f]{40} # v[0-9.]+", each)] == []
    workflow = read(path)
    assert workflow["permissions"] == {}
    for job in workflow["jobs"].values():
        assert "permissions" in job
        # A job that calls another workflow has that one's limits.
        assert job.get("timeout-minutes", 0 if "uses" in job else 999) <= 60


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: str(path.name))
def test_a_workflow_runs_the_targets_of_the_makefile(path: Path) -> None:
    """The same commands as on a developer's machine."""
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    called = [
        name
        for line in re.findall(r"\bmake ([a-z -]+?)(?: \"TAG=.*)?$", path.read_text(), re.MULTILINE)
        for name in line.split()
    ]
    assert called
    assert set(called) <= targets


def test_a_release_can_be_made_only_from_a_tag_and_after_all_tests() -> None:
    """Only the job that publishes may write, and it has the identity that signs; no text of others is in a command."""
    release = read(".github/workflows/release.yml")
    assert release[True] == {"push": {"tags": ["v*"]}}  # YAML reads `on` as true
    jobs = release["jobs"]
    assert jobs["test"]["uses"] == "./.github/workflows/ci.yml"
    assert jobs["test"]["needs"] == "start"
    assert jobs["image"]["needs"] == ["start", "test"]
    assert jobs["publish"]["needs"] == "image"
    writing = {
        name: {right for right, value in job["permissions"].items() if value == "write"} for name, job in jobs.items()
    }
    assert writing == {
        "start": set(),
        "test": set(),
        "image": {"packages"},
        "publish": {"contents", "packages", "id-token"},
    }
    assert jobs["publish"]["environment"] == "release"
    commands = [step["run"] for job in jobs.values() for step in job.get("steps", ()) if "run" in step]
    assert not [command for command in commands if "${{" in command]
    assert {each["runner"] for each in jobs["image"]["strategy"]["matrix"]["include"]} == {
        "ubuntu-24.04",
        "ubuntu-24.04-arm",
    }
