"""The body of a request: its limit to the byte, its ends, and how it is hashed."""

import time
from collections.abc import Callable, Sequence

import pytest

from service.errors import Aborted, Overloaded, ReadTimeout, TooLarge, WebhookError
from service.receiver import request_body
from service.receiver.request_body import MIN_HASHED_BYTES, read_body


class Pieces:
    """`wsgi.input` of pieces, and an end as it may be."""

    def __init__(self, pieces: Sequence[bytes], end: Exception | None = None) -> None:
        self._pieces = list(pieces)
        self._end = end

    def read(self, size: int, /) -> bytes:
        assert size == 16_384
        if self._pieces:
            return self._pieces.pop(0)
        if self._end:
            raise self._end
        return b""


def read(
    stream: request_body.BodyStream,
    *,
    length: int | None = None,
    limit: int = 2**20,
    update: Callable[[memoryview], None] = lambda _: None,
    seconds: float = 5,
) -> bytes:
    deadline = time.monotonic() + seconds
    return read_body(stream, length=length, limit=limit, deadline=deadline, update=update)


@pytest.mark.parametrize("length", [None, 100])
def test_the_limit_is_exact(length: int | None) -> None:
    """A body of just so many bytes is taken, one of a byte more is not; by length or chunked."""
    assert len(read(Pieces([b"x" * 60, b"x" * 40]), length=length, limit=100)) == 100
    with pytest.raises(TooLarge):
        read(Pieces([b"x" * 60, b"x" * 41]), length=length and 101, limit=100)


@pytest.mark.parametrize(
    ("end", "length", "error"),
    [
        (TimeoutError(), 100, ReadTimeout),
        (OSError(), 100, Aborted),
        (ValueError(), 100, Aborted),
        (None, 100, Aborted),
        (Overloaded(), 100, Overloaded),
        (TimeoutError(), None, ReadTimeout),
        (OSError(), None, Aborted),
        (Overloaded(), None, Overloaded),
    ],
)
def test_a_body_that_does_not_come(end: Exception | None, length: int | None, error: type[WebhookError]) -> None:
    """Too late, cut, broken, short, or given up for others; by length or chunked."""
    with pytest.raises(error):
        read(Pieces([b"x" * 50], end), length=length)


def test_nothing_is_read_behind_its_end() -> None:
    """A body of known length is whole with its last byte, whatever the connection does next."""
    body = read(Pieces([b"x" * 60, b"x" * 40], TimeoutError()), length=100)
    assert body == b"x" * 100
    assert type(body) is bytes, "a bytearray could change under whoever keeps it"


def test_a_step_is_16_kib() -> None:
    """So that hashing costs little per piece, and holds nobody up."""
    assert MIN_HASHED_BYTES == 16_384


def test_a_deadline_that_passed() -> None:
    """Holds for a client that is never waited for, too."""
    with pytest.raises(ReadTimeout):
        read(Pieces([b"x"]), seconds=-1)


@pytest.mark.parametrize(
    "size", [0, 1, MIN_HASHED_BYTES - 1, MIN_HASHED_BYTES, MIN_HASHED_BYTES + 1, 5 * MIN_HASHED_BYTES + 3]
)
@pytest.mark.parametrize("piece", [1000, 16_384, 100_000])
def test_it_is_hashed_as_it_comes(size: int, piece: int) -> None:
    """Every byte once and in order, in steps that are neither tiny nor larger than a step and a piece."""
    content = bytes(number % 251 for number in range(size))
    steps: list[bytes] = []
    pieces = [content[start : start + piece] for start in range(0, size, piece)]
    read(Pieces(pieces), update=lambda step: steps.append(bytes(step)))
    assert b"".join(steps) == content
    assert all(len(step) >= MIN_HASHED_BYTES for step in steps[:-1])
    assert all(len(step) < MIN_HASHED_BYTES + piece for step in steps)
