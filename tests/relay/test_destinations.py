"""The destinations file: every problem is reported, and nothing ambiguous is accepted."""

import json
from pathlib import Path
from typing import Any

import msgspec
import pytest

from service.errors import ConfigurationError
from service.events import Event
from service.relay.destination_registry import DestinationRegistry
from service.relay.destinations import Destination, parse
from service.storage.delivery_policy import DELIVERY_POLICY, DeliveryPolicy
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
    required = {"name": "bot", "url": "https://bot.example.com/", "format": "meta", "secretFile": "bot"}
    return Destination.model_validate({**required, **more})


def text_message(**changes: Any) -> Event:
    attributes = {"source": "/102/106", "type": "com.whatsapp.message.text", "field": "messages", "test": False}
    return msgspec.structs.replace(event(1), **{**attributes, **changes})


def test_defaults() -> None:
    """Optional keys have these defaults, and a list may be empty."""
    (bot,) = parse(GOOD.encode(), "d.yaml")
    assert (bot.concurrency, bot.timeout, bot.tests, bot.internal, bot.begin) == (4, 10.0, False, False, "now")
    assert parse(b"destinations: []", "d.yaml") == parse(b"destinations:\n", "d.yaml") == ()


@pytest.mark.parametrize(
    "text",
    [
        "",  # truncated while it was written: not the same as an empty list
        "destinations: !!bool x",
        "destinations: !!int ''",
        "%YAML 1.99\n---\ndestinations: []",
        'destinations: "\\UFFFFFFFF"',
        "? [a]\n: b",
        "[" * 3000,
        "destinations: &a [*a]",
    ],
)
def test_unusable_yaml_is_reported(text: str) -> None:
    """Whatever exception the library raises, or whatever it returns, is a ConfigurationError."""
    with pytest.raises(ConfigurationError, match=r"YAML|must|should be"):
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
def test_a_problem_quotes_no_secret(text: str) -> None:
    """It names the line and column instead."""
    with pytest.raises(ConfigurationError) as raised:
        parse(text.encode(), "d.yaml")
    assert "s3cret" not in str(raised.value.problems)
    assert "line" in str(raised.value.problems)


def test_all_problems_are_reported_together() -> None:
    """Each with its destination, and an unknown key with the most similar known one."""
    text = """
destinations:
  - {name: Bad_Name, url: "ftp://x", format: meta, secretFile: a, concurency: 3}
  - {name: two, url: "https://u:p@x/", format: xml, secretFile: a, timeout: 10m, headers: {Host: x}}
  - {name: three, url: "http://x/", format: meta, secretFile: a, concurrency: 0, tests: "yes"}
"""
    problems = problems_of(text)
    for part in (
        "destination 'Bad_Name': name: ",
        "destination 'Bad_Name': url: must be a URL",
        "destination 'Bad_Name': unknown key concurency: did you mean concurrency?",
        "destination 'two': url: must not contain a user",
        "destination 'two': format: ",
        "destination 'two': timeout: ",
        "destination 'two': headers: 'Host' is set by the relay",
        "destination 'three': concurrency: ",
        "destination 'three': tests: ",
    ):
        assert [problem for problem in problems if f"d.yaml: {part}" in problem], (part, problems)


RELAY_HEADERS = (
    "Host content-type Content-Length transfer-encoding connection X-Hub-Signature-256 x-hub-anything ce-id CE-Type "
    "webhook-id webhook-signature traceparent tracestate User-Agent"
)


@pytest.mark.parametrize("name", RELAY_HEADERS.split())
def test_a_header_that_the_relay_sets_is_rejected(name: str) -> None:
    """Whether its value is in the destinations file or in a file of its own."""
    for value in ("x", "{file: x}"):
        (problem,) = problems_of(GOOD + f"    headers: {{{name}: {value}}}\n")
        assert "is set by the relay and can't be overridden" in problem


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("destinations: {a: 1}", "`destinations` must be a list"),
        ("destination: []", "must have exactly one key, `destinations`"),
        ("[]", "must have exactly one key"),
        ("a: b: c", "invalid YAML"),
        (GOOD + "    url: https://other.example.com/\n", "invalid YAML: duplicate key"),
        (GOOD + GOOD.split("\n", 2)[2], "two destinations have the name 'bot'"),
        (GOOD.replace("https", "http"), "http:// requires `internal: true`"),
        (GOOD + '    headers: {X-A: "a\\nb"}\n', "must be a valid header name"),
        ("destinations:\n  - 1\n", "destination 1: "),
    ],
)
def test_rejected_files(text: str, problem: str) -> None:
    """A duplicate key is rejected too, because YAML parsers disagree on which value counts."""
    assert problem in "; ".join(problems_of(text))


@pytest.mark.parametrize(
    ("entry", "changes", "wants"),
    [
        ({}, {}, True),
        ({}, {"test": True}, False),
        ({"tests": True}, {"test": True}, True),
        ({"types": ["com.whatsapp.message.*"]}, {}, True),
        ({"types": ["com.whatsapp.status.*", "com.whatsapp.message.text"]}, {}, True),
        ({"types": ["com.whatsapp.message"]}, {}, True),
        ({"types": ["com.whatsapp.mess"]}, {}, False),
        ({"types": ["com.whatsapp.message.text.more"]}, {}, False),
        ({"types": ["com.whatsapp.status.*"]}, {}, False),
        ({"fields": ["messages"]}, {}, True),
        ({"fields": ["calls"]}, {}, False),
        ({"phoneNumberIds": ["106"]}, {}, True),
        ({"phoneNumberIds": ["10"]}, {}, False),
        ({"phoneNumberIds": ["106"], "fields": ["calls"]}, {}, False),
    ],
)
def test_the_filter(entry: dict[str, Any], changes: dict[str, Any], *, wants: bool) -> None:
    """Every condition must match; a condition matches if any of its values does."""
    assert destination(**entry).selects(text_message(**changes)) is wants


class TestRegistry:
    """The current destinations and secrets, while the files change."""

    @pytest.fixture
    def file(self, tmp_path: Path) -> Path:
        (tmp_path / "bot").write_text("secret\nolder\n")
        path = tmp_path / "destinations.yaml"
        path.write_text(GOOD)
        return path

    def test_valid_destinations_are_loaded(self, file: Path) -> None:
        """With all lines of the secret; reading again changes nothing."""
        registry = DestinationRegistry(file)
        registry.look()
        first = registry.current.entries
        assert first["bot"].secrets == (b"secret", b"older")
        assert not registry.problems
        registry.look()
        assert registry.current.entries == first

    def test_a_changed_secret_is_reloaded(self, file: Path) -> None:
        """Without a restart, like the credentials."""
        registry = DestinationRegistry(file)
        registry.look()
        (file.parent / "bot").write_text("new\n")
        registry.look()
        assert registry.current.entries["bot"].secrets == (b"new",)

    def test_a_header_value_in_a_file(self, file: Path) -> None:
        """It is reloaded like a secret; if it is missing or invalid, its destination stays unchanged."""
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

    def test_an_invalid_file_changes_nothing(self, file: Path) -> None:
        """Its problems are reported until it is valid again."""
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

    def test_an_unchanged_file_is_not_parsed_again(self, file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """Valid or not: it is read twice a second."""
        registry = DestinationRegistry(file)
        for text in (GOOD, "destinations: 1"):
            file.write_text(text)
            registry.look()
            problems = registry.problems
            with monkeypatch.context() as patch:
                patch.setattr("ruamel.yaml.YAML.load", None)
                registry.look()
            assert registry.problems == problems

    def test_an_invalid_file_name_of_a_secret_is_reported(self, file: Path) -> None:
        """A file name can't contain a NUL."""
        file.write_text(GOOD.replace("secretFile: bot", 'secretFile: "a\\0b"'))
        registry = DestinationRegistry(file)
        registry.look()
        assert "not a file name" in registry.problems[0]

    def test_a_missing_secret_affects_only_its_own_destination(self, file: Path) -> None:
        """Others are loaded; a destination that had a secret before keeps it."""
        file.write_text(GOOD + GOOD.split("\n", 2)[2].replace("bot", "other").replace("meta", "cloudevents"))
        registry = DestinationRegistry(file)
        registry.look()
        assert set(registry.current.entries) == {"bot"}
        assert set(registry.current.configured) == {"bot", "other"}
        assert "destination 'other'" in registry.problems[0]
        (file.parent / "other").write_text("no prefix\n")
        registry.look()
        assert "must be whsec_ followed by base64 (line 1)" in registry.problems[0]
        (file.parent / "other").write_text("whsec_MDEyMzQ1Njc4OWFiY2RlZg==\n")
        registry.look()
        assert set(registry.current.entries) == {"bot", "other"}
        (file.parent / "other").unlink()
        registry.look()
        assert set(registry.current.entries) == {"bot", "other"}
        assert "can't be read" in registry.problems[0]


def test_the_delivery_options_of_the_documentation() -> None:
    """Durations are in milliseconds, and a rate is per second."""
    options = {
        "maxAge": "12h",
        "maxAttempts": 20,
        "backoff": {"first": "1s", "max": "10m"},
        "permanentStatuses": [400, 404],
        "permanentAttempts": 5,
        "permanentAfter": "90s",
        "onFailure": "skip",
        "rateLimit": "600/m",
    }
    bot = destination(delivery=options, keepResponses=False)
    assert bot.delivery.policy() == DeliveryPolicy(
        max_age_ms=43_200_000,
        max_attempts=20,
        first_backoff_ms=1000,
        max_backoff_ms=600_000,
        permanent_statuses=frozenset({400, 404}),
        permanent_attempts=5,
        permanent_after_ms=90_000,
        skip_after=5,
    )
    assert bot.delivery.rate_limit == 10
    assert not bot.keep_responses
    assert destination(delivery={"onFailure": "skip", "skipAfter": 2}).delivery.policy().skip_after == 2


def test_without_delivery_options_the_defaults_apply() -> None:
    """Those of the policy, also if the key is there but empty."""
    assert destination().delivery.policy() == destination(delivery={}).delivery.policy() == DELIVERY_POLICY
    assert destination().delivery.rate_limit is None


@pytest.mark.parametrize(
    ("options", "problem"),
    [
        ({"maxAge": 3}, "maxAge: must be a duration from 1m to 30d with a unit"),
        ({"maxAge": "3"}, "maxAge: must be a duration from 1m to 30d with a unit"),
        ({"maxAge": "59s"}, "maxAge: must be a duration from 1m to 30d"),
        ({"maxAge": "31d"}, "maxAge: must be a duration from 1m to 30d"),
        ({"backoff": {"first": "2h"}}, "first must not be longer than max"),
        ({"backoff": {"first": "1ms"}}, "backoff.first: must be a duration from 100ms"),
        ({"permanentStatuses": [410]}, "without 410"),
        ({"permanentStatuses": [429]}, "429 (retried)"),
        ({"permanentStatuses": [500]}, "statuses from 400 to 499"),
        ({"permanentStatuses": ["400"]}, "permanentStatuses.0"),
        ({"maxAttempts": 0}, "maxAttempts: input should be greater than or equal to 1"),
        ({"onFailure": "drop"}, "'block' or 'skip'"),
        ({"skipAfter": 3}, "skipAfter requires `onFailure: skip`"),
        ({"rateLimit": "50"}, "such as 50/s, 600/m or 1000/h"),
        ({"rateLimit": 50}, "such as 50/s, 600/m or 1000/h"),
        ({"rateLimit": "0/s"}, "such as 50/s, 600/m or 1000/h"),
        ({"maxAges": "3d"}, "unknown key delivery.maxAges: did you mean maxAge?"),
        ({"backoff": {"initial": "1s"}}, "unknown key delivery.backoff.initial"),
    ],
)
def test_a_wrong_delivery_option_is_reported(options: dict[str, Any], problem: str) -> None:
    """With the name of the option, and what is allowed."""
    entry = {"name": "bot", "url": "https://bot.example.com/", "format": "meta", "secretFile": "bot"}
    (told,) = problems_of(json.dumps({"destinations": [{**entry, "delivery": options}]}))
    assert problem in told
    assert "destination 'bot'" in told
