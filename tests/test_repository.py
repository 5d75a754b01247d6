"""The files that the hosting platform and editors read: forms for issues, updates of dependencies, hooks."""

import re
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).parent.parent
FORMS = sorted((ROOT / ".github/ISSUE_TEMPLATE").glob("*.yml"))
MANIFESTS = {"pip": "pyproject.toml", "docker": "Dockerfile", "npm": "package.json"}


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
