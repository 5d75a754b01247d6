"""The destinations file: what is wrong is said at once, and nothing is taken that could surprise."""

from pathlib import Path
from typing import Any

import msgspec
import pytest

from service.errors import ConfigurationError
from service.events import Event
from service.relay.destination_registry import DestinationRegistry
from service.relay.destinations import Destination, parse
from tests.support.events import event

GOOD = """
destinations:
  - name: bot
    url: https://bot.example.com/webhook
    format: meta
    secretFile: bot
"""


def problems_of(text: str) -> tuple[str, ...]:
    with pytest.raises(ConfigurationError) as raised:
        parse(text.encode(), "d.yaml")
    return raised.value.problems


def destination(**more: Any) -> Destination:
    given = {"name": "bot", "url": "https://bot.example.com/", "format": "meta", "secretFile": "bot"}
    return Destination.model_validate({**given, **more})


def wanting(**changes: Any) -> Event:
    kind = {"source": "/102/106", "type": "com.whatsapp.message.text", "field": "messages", "test": False}
    return msgspec.structs.replace(event(1), **{**kind, **changes})


def test_defaults() -> None:
    """What a short entry means."""
    (bot,) = parse(GOOD.encode(), "d.yaml")
    assert (bot.concurrency, bot.timeout, bot.tests, bot.internal, bot.begin) == (4, 10.0, False, False, "now")
    assert parse(b"destinations: []", "d.yaml") == parse(b"destinations:\n", "d.yaml") == ()


@pytest.mark.parametrize(
    "text",
    [
        "",  # cut short while it was written: not the same as an empty list
        "destinations: !!bool x",
        "destinations: !!int ''",
        "%YAML 1.99\n---\ndestinations: []",
        'destinations: "\\UFFFFFFFF"',
        "? [a]\n: b",
        "[" * 3000,
        "destinations: &a [*a]",
    ],
)
def test_what_is_no_yaml_of_ours_is_said(text: str) -> None:
    """Whatever the library makes of it."""
    with pytest.raises(ConfigurationError, match=r"YAML|wants|should be"):
        parse(text.encode(), "d.yaml")


@pytest.mark.parametrize(
    "text",
    [
        "destinations:\n- headers: {Authorization: Bearer s3cret}\n  headers: {Authorization: Bearer s3cret2}\n",
        "destinations:\n- headers: {Authorization: Bearer s3cret\n",
        "destinations:\n- headers: 's3cret\n",
        "destinations:\n- Authorization: s3cret: s3cret\n",
    ],
)
def test_what_is_said_quotes_no_secret(text: str) -> None:
    """The line and column tell where to look."""
    with pytest.raises(ConfigurationError) as raised:
        parse(text.encode(), "d.yaml")
    assert "s3cret" not in str(raised.value.problems)
    assert "line" in str(raised.value.problems)


def test_every_problem_at_once() -> None:
    """Each with its destination, and a misspelling with what was meant."""
    text = """
destinations:
  - {name: Bad_Name, url: "ftp://x", format: meta, secretFile: a, concurency: 3}
  - {name: two, url: "https://u:p@x/", format: xml, secretFile: a, timeout: 10m, headers: {Host: x}}
  - {name: three, url: "http://x/", format: meta, secretFile: a, concurrency: 0, tests: "yes"}
"""
    found = problems_of(text)
    for part in (
        "destination 'Bad_Name': name: ",
        "destination 'Bad_Name': url: wants a URL",
        "destination 'Bad_Name': concurency is not known: did you mean concurrency?",
        "destination 'two': url: must not hold a user",
        "destination 'two': format: ",
        "destination 'two': timeout: ",
        "destination 'two': headers: 'Host' is the relay's own to say",
        "destination 'three': concurrency: ",
        "destination 'three': tests: ",
    ):
        assert [problem for problem in found if f"d.yaml: {part}" in problem], (part, found)


OWN = (
    "Host content-type Content-Length transfer-encoding connection X-Hub-Signature-256 x-hub-anything ce-id CE-Type "
    "webhook-id webhook-signature traceparent tracestate User-Agent"
)


@pytest.mark.parametrize("name", OWN.split())
def test_a_header_of_the_relays_own(name: str) -> None:
    """No destination says it otherwise; its value may be in a file or not."""
    for value in ("x", "{file: x}"):
        (problem,) = problems_of(GOOD + f"    headers: {{{name}: {value}}}\n")
        assert "is the relay's own to say" in problem


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("destinations: {a: 1}", "wants a list below `destinations`"),
        ("destination: []", "wants one key, `destinations`"),
        ("[]", "wants one key"),
        ("a: b: c", "is not YAML"),
        (GOOD + "    url: https://other.example.com/\n", "is not YAML"),
        (GOOD + GOOD.split("\n", 2)[2], "two destinations are called 'bot'"),
        (GOOD.replace("https", "http"), "without TLS only where `internal: true`"),
        (GOOD + '    headers: {X-A: "a\\nb"}\n', "must be fit for HTTP"),
        ("destinations:\n  - 1\n", "destination 1: "),
    ],
)
def test_what_is_refused(text: str, said: str) -> None:
    """A key that stands twice too: the readers of the world disagree on which of the two counts."""
    assert said in "; ".join(problems_of(text))


@pytest.mark.parametrize(
    ("entry", "changes", "wants"),
    [
        ({}, {}, True),
        ({}, {"test": True}, False),
        ({"tests": True}, {"test": True}, True),
        ({"types": ["com.whatsapp.message.*"]}, {}, True),
        ({"types": ["com.whatsapp.status.*", "com.whatsapp.message.text"]}, {}, True),
        ({"types": ["com.whatsapp.message"]}, {}, False),
        ({"types": ["com.whatsapp.status.*"]}, {}, False),
        ({"fields": ["messages"]}, {}, True),
        ({"fields": ["calls"]}, {}, False),
        ({"phoneNumberIds": ["106"]}, {}, True),
        ({"phoneNumberIds": ["10"]}, {}, False),
        ({"phoneNumberIds": ["106"], "fields": ["calls"]}, {}, False),
    ],
)
def test_the_filter(entry: dict[str, Any], changes: dict[str, Any], *, wants: bool) -> None:
    """Every condition must hold; within one, any."""
    assert destination(**entry).wants(wanting(**changes)) is wants


class TestTheBook:
    """Destinations and secrets in force, whatever becomes of the files."""

    @pytest.fixture
    def file(self, tmp_path: Path) -> Path:
        (tmp_path / "bot").write_text("secret\nolder\n")
        path = tmp_path / "destinations.yaml"
        path.write_text(GOOD)
        return path

    def test_what_is_good_is_taken(self, file: Path) -> None:
        """With all lines of the secret; a second look changes nothing."""
        registry = DestinationRegistry(file)
        registry.look()
        first = registry.current.entries
        assert first["bot"].secrets == (b"secret", b"older")
        assert not registry.problems
        registry.look()
        assert registry.current.entries == first

    def test_a_secret_that_changes_is_taken(self, file: Path) -> None:
        """As credentials are."""
        registry = DestinationRegistry(file)
        registry.look()
        (file.parent / "bot").write_text("new\n")
        registry.look()
        assert registry.current.entries["bot"].secrets == (b"new",)

    def test_a_header_whose_value_is_in_a_file(self, file: Path) -> None:
        """It is read again like a secret; without a value its destination stays as it was."""
        file.write_text(GOOD + "    headers: {Authorization: {file: app-authorization}, X-Tenant: a}\n")
        registry = DestinationRegistry(file)
        registry.look()
        assert not registry.current.entries
        assert "headers.Authorization.file" in registry.problems[0]
        assert "can't be read" in registry.problems[0]
        for value, problem in (
            ("Bearer one", ""),
            ("Bearer two\n", ""),
            ("Bearer ü", "printable ASCII"),
            ("", "no value"),
        ):
            (file.parent / "app-authorization").write_text(value)
            registry.look()
            assert problem in "".join(registry.problems)
            assert bool(registry.problems) is bool(problem)
        assert registry.current.entries["bot"].headers == {"Authorization": "Bearer two", "X-Tenant": "a"}
        assert "Bearer" not in "".join(registry.problems)

    def test_a_bad_file_keeps_the_last_good_one(self, file: Path) -> None:
        """And says what is wrong with it, until it is good again."""
        registry = DestinationRegistry(file)
        registry.look()
        before = registry.current.entries
        for text in ("destinations: 1", None):
            file.write_text(text) if text else file.unlink()
            registry.look()
            assert registry.problems
            assert registry.current.entries is before
        file.write_text(GOOD)
        registry.look()
        assert not registry.problems

    def test_a_file_that_is_as_it_was_is_not_read_again(self, file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """Good or bad: it is looked at twice a second."""
        registry = DestinationRegistry(file)
        for text in (GOOD, "destinations: 1"):
            file.write_text(text)
            registry.look()
            problems = registry.problems
            with monkeypatch.context() as patch:
                patch.setattr("ruamel.yaml.YAML.load", None)
                registry.look()
            assert registry.problems == problems

    def test_a_secret_whose_name_is_none_is_said(self, file: Path) -> None:
        """A name of a file that holds a NUL is nobody's."""
        file.write_text(GOOD.replace("secretFile: bot", 'secretFile: "a\\0b"'))
        registry = DestinationRegistry(file)
        registry.look()
        assert "not a file name" in registry.problems[0]

    def test_a_missing_secret_harms_its_own_destination_only(self, file: Path) -> None:
        """Others are taken; the one that had a secret keeps it."""
        file.write_text(GOOD + GOOD.split("\n", 2)[2].replace("bot", "other").replace("meta", "cloudevents"))
        registry = DestinationRegistry(file)
        registry.look()
        assert set(registry.current.entries) == {"bot"}
        assert set(registry.current.wanted) == {"bot", "other"}
        assert "destination 'other'" in registry.problems[0]
        (file.parent / "other").write_text("no prefix\n")
        registry.look()
        assert "wants whsec_ and base64 behind it (line 1)" in registry.problems[0]
        (file.parent / "other").write_text("whsec_MDEyMzQ1Njc4OWFiY2RlZg==\n")
        registry.look()
        assert set(registry.current.entries) == {"bot", "other"}
        (file.parent / "other").unlink()
        registry.look()
        assert set(registry.current.entries) == {"bot", "other"}
        assert "can't be read" in registry.problems[0]
