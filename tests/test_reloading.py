"""Reloaded values: the last good value stays, and problems are logged."""

import io
import json

from service.reloading import Reloading, Report
from service.telemetry import logs


def test_the_last_good_value_stays() -> None:
    """A failed read changes only the problems; `look` returns whether the value changed."""
    answers: list[tuple[int, tuple[str, ...]]] = [(1, ()), (1, ("it is gone",)), (2, ()), (2, ())]
    previous_values: list[int] = []

    def read(before: int) -> tuple[int, tuple[str, ...]]:
        previous_values.append(before)
        return answers.pop(0)

    value = Reloading(read, 0)
    results = [(value.look(), value.current, value.problems) for _ in range(4)]
    assert results == [(True, 1, ()), (False, 1, ("it is gone",)), (True, 2, ()), (False, 2, ())]
    assert previous_values == [0, 1, 1, 2]


def test_a_problem_is_logged_once() -> None:
    """It is logged when it starts, when it changes, and when it is over."""
    stream = io.StringIO()
    logs.configure(level="info", form="json", stream=stream)
    report = Report(logs.get("relay"), "destinations")
    for problems in ((), ("a",), ("a",), ("a", "b"), (), ()):
        report.update(problems)
    logged = [(line["event"], line.get("problems")) for line in map(json.loads, stream.getvalue().splitlines())]
    assert logged == [
        ("destinations not readable", ["a"]),
        ("destinations not readable", ["a", "b"]),
        ("destinations readable again", None),
    ]
