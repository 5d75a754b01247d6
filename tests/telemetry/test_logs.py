"""Logs: allowed keys and no other, one line per record, repeated lines summarized."""

import io
import json
import logging
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.telemetry import logs


@pytest.fixture
def stream() -> Iterator[io.StringIO]:
    root = logging.getLogger()
    handlers, level = root.handlers, root.level
    written = io.StringIO()
    logs.configure(level="debug", form="json", stream=written)
    yield written
    root.handlers, root.level = handlers, level


def lines(stream: io.StringIO) -> list[dict[str, Any]]:
    return [json.loads(line) for line in stream.getvalue().splitlines()]


def test_a_key_that_is_not_allowed_is_dropped(stream: io.StringIO) -> None:
    """Keys that are not on the allow-list are never logged."""
    logs.get("a").info("something", reason="x", text="hello", wa_id="49", body=b"x")
    (line,) = lines(stream)
    assert set(line) == {"event", "level", "logger", "timestamp", "reason"}
    assert list(line)[:3] == ["timestamp", "level", "event"]


def test_an_exception_is_logged_without_its_message(stream: io.StringIO) -> None:
    """The message may quote request data; the type and the frames are logged."""
    try:
        raise ValueError("4915112345678")
    except ValueError as ex:
        logs.get("a").error("failed", exc_info=ex)
    assert "4915112345678" not in stream.getvalue()
    (line,) = lines(stream)
    assert line["error"] == "ValueError"
    assert "test_logs.py" in line["exception"][-1]


def test_lines_of_libraries_have_the_same_format(stream: io.StringIO) -> None:
    """Anything that looks like a phone number or a token is removed, and low levels are not logged."""
    logging.getLogger("gunicorn.error").info("Booting worker with pid: %s", 7)
    logging.getLogger("another").warning("GET /?hub.verify_token=SECRET&x of +4915112345678")
    logging.getLogger("another").info("small talk")
    logging.getLogger("urllib3.connection").warning("it quotes what a destination answered")
    first, second = lines(stream)
    assert first["event"] == "Booting worker with pid: 7"
    assert second["event"] == "GET /?[removed]&x of [removed]"


@given(st.text(max_size=50))
def test_a_record_is_one_line(text: str) -> None:
    """Any text is escaped."""
    stream = io.StringIO()
    logs.configure(level="debug", form="json", stream=stream)
    logs.get("a").info("event", detail=text)
    (line,) = stream.getvalue().split("\n")[:-1]
    assert json.loads(line)["detail"] == text


def test_the_minimum_level(stream: io.StringIO) -> None:
    """Lines below the level are not logged."""
    logs.configure(level="warning", form="json", stream=stream)
    logs.get("a").info("quiet")
    logs.get("a").warning("loud")
    assert [line["event"] for line in lines(stream)] == ["loud"]


def test_repeated_lines_are_summarized() -> None:
    """The first line is logged immediately, the number of the others every ten seconds and at shutdown."""
    clock = [0.0]
    written: list[tuple[str, dict[str, Any]]] = []

    class Log:
        def warning(self, event: str, **more: Any) -> None:
            written.append((event, more))

    rate_limited_log = logs.RateLimitedLog(Log(), now=lambda: clock[0])
    for _ in range(1000):
        rate_limited_log.add("refused", "bad_signature")
    rate_limited_log.add("refused", "too_large")
    rate_limited_log.flush()
    assert [(event, more["reason"], more["count"]) for event, more in written] == [
        ("refused", "bad_signature", 1),
        ("refused", "too_large", 1),
    ]
    clock[0] = 10.0
    rate_limited_log.flush()
    assert written[2:] == [("refused", {"reason": "bad_signature", "count": 999, "seconds": 10.0})]
    rate_limited_log.add("refused", "bad_signature")
    assert len(written) == 3
    clock[0] = 20.0
    rate_limited_log.flush()
    assert written[3][1]["count"] == 1
    clock[0] = 40.0
    rate_limited_log.flush()
    rate_limited_log.add("refused", "bad_signature")
    assert len(written) == 5
    rate_limited_log.add("refused", "bad_signature")
    rate_limited_log.flush(force=True)
    assert written[5][1]["count"] == 1


def test_keyed_hashes() -> None:
    """They are equal under one key, differ under another, and never contain the value."""
    hashed = logs.KeyedHasher(b"key")
    assert hashed("49") == hashed("49") == logs.KeyedHasher(b"key")("49")
    assert hashed("49") != hashed("50")
    before = hashed("49")
    hashed.set_key(b"other")
    assert hashed("49") != before
    assert logs.KeyedHasher()("49") != logs.KeyedHasher()("49")


def test_a_persistent_problem_is_logged_again() -> None:
    """It is logged when it starts or changes, then every ten minutes with `since`, until it is over."""
    clock = [1_795_000_000.0]
    written: list[tuple[str, str, dict[str, Any]]] = []

    class Log:
        def error(self, event: str, **more: Any) -> None:
            written.append(("error", event, more))

        def warning(self, event: str, **more: Any) -> None:
            written.append(("warning", event, more))

    trouble = logs.ProblemLog(Log(), now_ms=lambda: int(clock[0] * 1000))
    assert not trouble.resolve()
    for _ in range(1800):
        trouble.report("inbox unavailable", key="full", detail=f"{clock[0]}")
        clock[0] += 1
    since = {"since": "2026-11-18T11:06:40+00:00"}
    assert [(level, more.keys() - {"detail"}) for level, _, more in written] == [
        ("error", set()),
        ("error", {"since"}),
        ("error", {"since"}),
    ]
    assert written[1][2].items() >= since.items()
    trouble.report("inbox unavailable", key="locked", detail="another")
    assert "since" not in written[3][2]
    assert trouble.resolve()
    trouble.report("inbox unavailable", key="locked", level="warning")
    assert written[4][0] == "warning"
    assert len(written) == 5
