"""The body of a request: its exact limit, how it ends, and how it is hashed."""

import time
from collections.abc import Callable, Sequence

import pytest

from service.errors import Aborted, Overloaded, ReadTimeout, TooLarge, WebhookError
from service.receiver import request_body
from service.receiver.request_body import MIN_HASHED_BYTES, read_body


class Pieces:
    """A `wsgi.input` that returns pieces, then ends or raises *end*."""

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
    """A body of exactly the limit is accepted, and one more byte is rejected, with a length or chunked."""
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
def test_an_incomplete_body(end: Exception | None, length: int | None, error: type[WebhookError]) -> None:
    """It is late, aborted, malformed, short or evicted, with a length or chunked."""
    with pytest.raises(error):
        read(Pieces([b"x" * 50], end), length=length)


def test_nothing_is_read_after_the_end() -> None:
    """A body of known length is complete with its last byte, whatever the connection does next."""
    body = read(Pieces([b"x" * 60, b"x" * 40], TimeoutError()), length=100)
    assert body == b"x" * 100
    assert type(body) is bytes, "a bytearray could be changed later"


def test_a_step_is_16_kib() -> None:
    """This keeps the overhead per step small, and does not block other requests."""
    assert MIN_HASHED_BYTES == 16_384


def test_the_deadline() -> None:
    """It also applies to a client whose bytes arrive without a pause."""
    with pytest.raises(ReadTimeout):
        read(Pieces([b"x"]), seconds=-1)


@pytest.mark.parametrize(
    "size", [0, 1, MIN_HASHED_BYTES - 1, MIN_HASHED_BYTES, MIN_HASHED_BYTES + 1, 5 * MIN_HASHED_BYTES + 3]
)
@pytest.mark.parametrize("piece", [1000, 16_384, 100_000])
def test_the_body_is_hashed_while_it_arrives(size: int, piece: int) -> None:
    """Every byte is hashed once and in order, in steps of at least MIN_HASHED_BYTES except the last."""
    content = bytes(number % 251 for number in range(size))
    steps: list[bytes] = []
    pieces = [content[start : start + piece] for start in range(0, size, piece)]
    read(Pieces(pieces), update=lambda step: steps.append(bytes(step)))
    assert b"".join(steps) == content
    assert all(len(step) >= MIN_HASHED_BYTES for step in steps[:-1])
    assert all(len(step) < MIN_HASHED_BYTES + piece for step in steps)
