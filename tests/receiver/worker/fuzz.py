"""Fuzzes the parser (`make fuzz`): the result must not depend on the pieces, and no other exception may be raised."""

import sys

import atheris

with atheris.instrument_imports(include=["service.receiver.worker.http_parser"]):
    from tests.receiver.worker.outcome import outcome


def try_one(data: bytes) -> None:
    """Parse *data* as one piece, and as two that are split where its first byte says."""
    if len(data) > 1:
        at = data[0] % len(data)
        whole = outcome([data[1:]])
        assert outcome([piece for piece in (data[1:at], data[max(at, 1) :]) if piece]) == whole


if __name__ == "__main__":
    atheris.Setup([*sys.argv, "-max_len=1500", "-timeout=10"], try_one)
    atheris.Fuzz()
