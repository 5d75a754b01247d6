"""Valid, malformed and smuggled requests: the responses of our worker and of gunicorn's own, as in the corpus."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from tests.receiver.worker.cases import Case, is_as, read
from tests.receiver.worker.conversation import converse, serving

CASES = read()


@pytest.fixture(scope="module")
def ours() -> Iterator[int]:
    with serving("ours") as port:
        yield port


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_each(ours: int, case: Case) -> None:
    """The responses are those of its file, including the one to the request after it."""
    answers = converse(ours, [case.raw])
    assert is_as(answers, case.answers), (case.why, answers)


def test_there_are_enough() -> None:
    """There are at least 300 cases, and none expects a response to a smuggled request."""
    assert len(CASES) >= 300
    assert sum("/smuggled" in case.raw.decode("latin-1") for case in CASES) > 80
    for case in CASES:
        assert "/smuggled" not in str(case.answers) or "'GET /smuggled" in str(case.answers), case.name


def test_gunicorns_own_worker() -> None:
    """Its responses are the same, or the case says why they differ."""
    with serving("gunicorn") as port, ThreadPoolExecutor(8) as pool:
        answers = pool.map(lambda case: converse(port, [case.raw]), CASES)
        for case, answer in zip(CASES, answers, strict=True):
            assert is_as(answer, case.gunicorn), (case.name, answer)
            assert bool(case.because) == (case.gunicorn != case.answers), case.name


def test_a_byte_at_a_time(ours: int) -> None:
    """The responses do not depend on how the bytes arrive, except for 100 Continue."""
    short = [case for case in CASES if len(case.raw) < 600]
    assert len(short) > 300
    with ThreadPoolExecutor(8) as pool:
        bytewise = pool.map(lambda case: converse(ours, [bytes([byte]) for byte in case.raw]), short)
        for case, answers in zip(short, bytewise, strict=True):
            assert is_as([answer for answer in answers if answer != "100"], case.answers), (case.name, answers)
