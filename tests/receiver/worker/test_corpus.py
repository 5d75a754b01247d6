"""Good, bad and smuggled requests: answered as the corpus says, by us and by gunicorn's own worker."""

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
    """Answered as its file says; a request behind it is answered where the server is still in step."""
    answers = converse(ours, [case.raw])
    assert is_as(answers, case.answers), (case.why, answers)


def test_there_are_enough() -> None:
    """What is smuggled is never answered, and what is broken never well."""
    assert len(CASES) >= 300
    assert sum("/smuggled" in case.raw.decode("latin-1") for case in CASES) > 80
    for case in CASES:
        assert "/smuggled" not in str(case.answers) or "'GET /smuggled" in str(case.answers), case.name


def test_gunicorns_own_worker() -> None:
    """It gives the same answers, or its file says why not."""
    with serving("gunicorn") as port, ThreadPoolExecutor(8) as pool:
        answers = pool.map(lambda case: converse(port, [case.raw]), CASES)
        for case, found in zip(CASES, answers, strict=True):
            assert is_as(found, case.gunicorn), (case.name, found)
            assert bool(case.because) == (case.gunicorn != case.answers), case.name


def test_a_byte_at_a_time(ours: int) -> None:
    """The same answers, however the bytes come; a body that has not come yet is asked for."""
    short = [case for case in CASES if len(case.raw) < 600]
    assert len(short) > 300
    with ThreadPoolExecutor(8) as pool:
        bytewise = pool.map(lambda case: converse(ours, [bytes([byte]) for byte in case.raw]), short)
        for case, found in zip(short, bytewise, strict=True):
            assert is_as([answer for answer in found if answer != "100"], case.answers), (case.name, found)
