"""The corpus: raw requests, one per file, each with its purpose and the expected responses."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

FOLDER = Path(__file__).parent / "corpus"


@dataclass(frozen=True)
class Case:
    """A file of the corpus; *gunicorn* are the responses of gunicorn's own worker, *because* says why they differ."""

    name: str
    why: str
    raw: bytes
    answers: list[str] | int
    gunicorn: list[str] | int
    because: str


def read() -> list[Case]:
    """Read all cases."""
    return [_case(file.stem, yaml.safe_load(file.read_text())) for file in sorted(FOLDER.glob("*.yaml"))]


def _case(name: str, found: dict[str, Any]) -> Case:
    parts = [found["raw"]] if isinstance(found["raw"], str) else found["raw"]
    raw = "".join(part if isinstance(part, str) else part[0] * part[1] for part in parts).encode("latin-1")
    answers = found["answers"]
    return Case(name, found["why"], raw, answers, found.get("gunicorn", answers), found.get("because", ""))


def is_as(answers: list[str], expected: list[str] | int) -> bool:
    """Return whether *answers* are as expected: each in full or by status, or only their number, all of them 200."""
    if isinstance(expected, int):
        return len(answers) == expected + 1 and all(answer.startswith("200") for answer in answers[:-1])
    return len(answers) == len(expected) and all(
        answer == each or answer[:3] == each for answer, each in zip(answers, expected, strict=True)
    )
