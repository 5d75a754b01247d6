"""Words that an earlier version used and that a reader would not search for: none of them comes back."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
READ = ("*.md", "*.py", "*.mjs", "*.js", "*.yaml", "*.yml", "*.tpl", "*.txt", "*.json", "*.sql", "*.service", "Makefile")
ASIDE = {".venv", ".git", ".dev", ".fuzz", "node_modules", "corpus", "site", "es", "tmp"}
# What is not to be written, and what is instead.
PHRASES = {
    r'"""(Give|Say|Tell|Have|Let|Be)\b': "Return, Raise, Yield, Check: a verb for what happens",
    r"\bin force\b": "accepted, current",
    r"\blanes?\b": "delivery queue",
    r"\bcouriers?\b": "delivery worker",
    r"\bgreet(ing|s)?\b": "handshake",
    r"\banew\b": "again, or from the start",
    r"\bow(e|es|ed)\b": "pending",
    r"\bpseudonyms?\b": "keyed hash",
    r"\bmend(s|ed|ing)?\b": "fix",
    r"\bfor ever\b": "forever",
    r"\bput to the proof\b": "verified",
    r"\bno use to\b": "useless",
    r"\bhind(er|ered|rance)\b": "prevent, block",
    r"\bends? with (status )?[012]\b": "exits with status",
    r"\b(of|to|by|from|on|in|at) what (is|was|came|comes|stands|they)\b": "name the thing",
    r"\bwhat of (it|that|them|these|those|what)\b": "name the thing",
    r"\bthe kept\b": "the stored events",
    r"\b(repeat|repeats) of Meta\b|\bMeta's repeats\b": "Meta's retries, duplicates",
    r"\bsay (first|what is yours)\b": "set, write",
    r"\btell(s|ing)? apart\b|\btold apart\b": "distinguish, recognize",
    r"\bwill have none of\b": "rejects",
    r"\bdead words?\b": "dead letter",
    r"\b(is|are|was|be) (of use|no use|no beauty)\b": "is useful, is useless",
    r"\bthe worse for\b": "name the harm",
    r"\bcame? to nothing\b": "failed",
    r"\bnot taken\b": "rejected",
    r"\bhow (it|this|that) stands\b": "state",
}
# Where a phrase is meant, by file.
ALLOWED: dict[str, set[str]] = {
    "service/storage/postgresql/delivery_database.py": {"owed", "lane"},  # names of pre-release tables, to be dropped
}


def places() -> list[Path]:
    found = (path for pattern in READ for path in ROOT.rglob(pattern))
    return sorted(path for path in found if not ASIDE & set(path.relative_to(ROOT).parts) and path != Path(__file__))


@pytest.mark.parametrize("path", places(), ids=lambda path: str(path.relative_to(ROOT)))
def test_a_stranger_would_search_for_it(path: Path) -> None:
    """Each phrase has a plainer one, which is named."""
    text = path.read_text()
    allowed = ALLOWED.get(str(path.relative_to(ROOT)), set())
    for phrase, instead in PHRASES.items():
        for found in re.finditer(phrase, text, re.IGNORECASE if phrase[0] == "\\" else 0):
            line = text.count("\n", 0, found.start()) + 1
            assert found[0].lower() in allowed, f"{path}:{line}: {found[0]!r}: write {instead}"
