"""The documents say what the code does."""

import re
from pathlib import Path

import pytest

from service.config import INBOX_FILE, SETTINGS, Config
from service.doctor import Finding
from service.errors import InboxUnavailable, NotificationRefused
from service.meta import webhook_fields
from service.outcomes import INBOX_FAILURES, CheckId, NotificationOutcome
from service.receiver import responses
from tests.support import command_lines, doc_tables, transcript

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text()
META, META_ES = "docs/meta.md", "docs/es/meta.md"
PAGES = [
    "README.md",
    "CONTRIBUTING.md",
    "SECURITY.md",
    *sorted(str(each.relative_to(ROOT)) for each in (ROOT / "docs").rglob("*.md")),
]


def test_every_setting_is_a_field() -> None:
    """The config class has the settings of the table, in their order, and the page names the file for the URL."""
    assert [each.name.removeprefix("WEBHOOK_").lower() for each in SETTINGS] == list(Config.__slots__)
    assert INBOX_FILE in (ROOT / "docs" / "configuration.md").read_text()


def test_the_readme_is_short() -> None:
    """Reference tables are in docs/."""
    assert len(README.splitlines()) <= 170


def test_the_table_of_answers() -> None:
    """docs/http.md lists each status that an error is mapped to."""
    table = (ROOT / "docs" / "http.md").read_text().partition("## Public listener")[2].partition("## Admin listener")[0]
    for error, answer in responses.ANSWERS.items():
        assert f"| {answer.status[:3]}" in table, error
        assert not answer.again or f"{answer.status[:3]} with `Retry-After`" in table


def test_the_outcomes_of_a_notification() -> None:
    """Each belongs to an error in the table of responses."""
    refused = (NotificationRefused, InboxUnavailable)
    kinds = {error.outcome for error in responses.ANSWERS if issubclass(error, refused)}
    assert kinds == set(NotificationOutcome) - {NotificationOutcome.ACCEPTED, NotificationOutcome.ERROR}


def test_why_an_inbox_fails() -> None:
    """The runbook says of each reason what to do."""
    runbook = (ROOT / "docs" / "runbook.md").read_text().partition("## WebhookInboxErrors")[2].partition("## ")[0]
    rows = re.findall(r"^\| (`.*?) \|", runbook, re.MULTILINE)
    assert sorted(re.findall(r"`(\w+)`", " ".join(rows))) == sorted(INBOX_FAILURES)


def test_every_name_in_the_readme_is_there() -> None:
    """Files that it points to, and commands that it shows."""
    for target in re.findall(r"\]\((?!http)([^)#]+)\)", README):
        assert (ROOT / target).exists(), target
    for target in re.findall(r"(?:^|`)make ([a-z]+)", README, re.MULTILINE):
        assert re.search(rf"^{target}:", (ROOT / "Makefile").read_text(), re.MULTILINE), target


def test_the_architecture_names_every_package() -> None:
    """In the table of layers."""
    page = (ROOT / "docs" / "architecture.md").read_text().partition("## Five flows")[0]
    for package in (ROOT / "service").iterdir():
        if not package.stem.startswith("_"):
            assert f"`{package.stem}`" in page, package.stem


def test_every_module_that_the_architecture_names_is_there() -> None:
    """A reader opens them one after the other."""
    page = (ROOT / "docs" / "architecture.md").read_text()
    named = re.findall(r"`((?:\w+/)*\w+\.py)`", page)
    assert len(named) > 60
    for name in named:
        places = [ROOT / "service" / name, ROOT / name, ROOT / "service" / "receiver" / "worker" / name]
        assert any(place.exists() for place in places) or name in ("schema.py", "delivery_database.py"), name


@pytest.mark.parametrize("name", doc_tables.TABLES)
def test_a_table_that_is_made_from_the_code(name: str) -> None:
    """`make docs` writes it."""
    path, make = doc_tables.TABLES[name]
    page = (ROOT / path).read_text()
    assert doc_tables.written(page, name, make()) == page
    assert make() in page


@pytest.mark.parametrize("path", [META, META_ES])
def test_every_check_of_the_doctor(path: str) -> None:
    """Stands in the tables of both pages, in their order; a finding's link leads to its row."""
    page = (ROOT / path).read_text()
    named = re.findall(r"^\| (?:<a id=\"[a-z-]+\"></a>)?`([a-z ]+)` \| .+ \| .+ \|$", page, re.MULTILINE)
    checks = [each for each in named if each in set(CheckId)]
    assert list(dict.fromkeys(checks)) == list(CheckId)
    if path == META:
        for check in CheckId:
            assert f'<a id="{Finding.ok(check, "").docs.partition("#")[2]}"></a>' in page


@pytest.mark.needs("nginx")
def test_the_transcripts() -> None:
    """They are what the commands print: `make transcript` writes them."""
    for name, block in transcript.made().items():
        for path in transcript.PAGES[name]:
            assert transcript.shown(path, name) == block, (path, name)


@pytest.mark.parametrize("path", ["CHANGELOG.md", *PAGES])
def test_a_page_is_readable(path: str) -> None:
    """No line of prose that a terminal would have to wrap twice; tables may be wide."""
    for line in _prose((ROOT / path).read_text()).splitlines():
        assert len(line) <= 140 or line.startswith("|"), line


def test_each_field_says_what_it_brings() -> None:
    """One line each."""
    assert all(meaning and "\n" not in meaning for meaning in webhook_fields.FIELDS.values())
    assert list(webhook_fields.FIELDS) == sorted(webhook_fields.FIELDS)


@pytest.mark.parametrize("path", [META, META_ES])
def test_every_field_that_can_be_chosen(path: str) -> None:
    """Stands in the table of both pages, and no other; in English with the words of the code."""
    rows = re.findall(r"^\| `([a-z_]+)` \| (.+?) \| (.+?) \|$", _table_of_fields(path), re.MULTILINE)
    chosen = [name for name in webhook_fields.FIELDS if name not in webhook_fields.NOT_CHOSEN]
    assert [name for name, _, _ in rows] == chosen
    if path == META:
        assert [meaning for _, meaning, _ in rows] == [webhook_fields.FIELDS[name] for name in chosen]


def _table_of_fields(path: str) -> str:
    """Return the section with the table of fields."""
    sections = re.split(r"^#+ ", (ROOT / path).read_text(), flags=re.MULTILINE)
    (found,) = [section for section in sections if "\n| `messages` |" in section]
    return found


def test_the_page_is_the_same_in_both_languages() -> None:
    """As many headings of each level, the same code, as many rows in each table, the same links to pages."""
    pages = [(ROOT / path).read_text() for path in (META, META_ES)]
    for found in (_blocks, _levels, _rows, _targets):
        english, spanish = map(found, pages)
        assert english == spanish
        assert english


def _blocks(page: str) -> list[tuple[str, str]]:
    return re.findall(r"^```(\w*)\n(.*?)^```$", page, re.MULTILINE | re.DOTALL)


def _prose(page: str) -> str:
    return re.sub(r"^```.*?^```$", "", page, flags=re.MULTILINE | re.DOTALL)


def _levels(page: str) -> list[int]:
    return [len(marks) for marks in re.findall(r"^(#+) ", _prose(page), re.MULTILINE)]


def _rows(page: str) -> list[int]:
    return [table.count("\n") for table in re.findall(r"(?:^\|.*\n)+", page, re.MULTILINE)]


def _targets(page: str) -> list[str]:
    """Return the linked pages by name, without the first, which is the other language."""
    return [target.partition("#")[0].rpartition("/")[2] for target in _links(page)][1:]


@pytest.mark.parametrize("path", [META, META_ES])
def test_every_command_on_the_page_is_there(path: str) -> None:
    """With each of its options, also where it runs in a pod."""
    said = "\n".join(text for language, text in _blocks((ROOT / path).read_text()) if language == "sh")
    lines = re.findall(r"(?:^| )whatsapp-webhook ([a-z].*)$", said.replace("\\\n", " "), re.MULTILINE)
    assert len(lines) > 10
    command_lines.require_valid(lines)


def _links(page: str) -> list[str]:
    return re.findall(r"\]\((?!http)([^)]+)\)", _prose(page))


def _anchors(page: str) -> set[str]:
    """Return the anchors of the headings of a page."""
    headings = re.findall(r"^#+ (.*)$", _prose(page), re.MULTILINE)
    return {re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("path", PAGES)
def test_every_link_leads_somewhere(path: str) -> None:
    """To a file that is there, and a heading of it."""
    for link in _links((ROOT / path).read_text()):
        name, _, anchor = link.partition("#")
        target = (ROOT / path).parent / name if name else ROOT / path
        assert target.exists(), link
        assert not anchor or anchor in _anchors(target.read_text()), link
