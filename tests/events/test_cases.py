"""Small inputs that failed once, and what they are."""

from pathlib import Path

import pytest

from service.events import Event, parse

pytestmark = pytest.mark.needs("cases")


def events_of(body: bytes) -> list[Event]:
    return list(parse(body, received_at=0, nonce=""))


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("01-half-emoji-text.json", [("com.whatsapp.message.text", "16505551234")]),
        ("17-messenger-batch.json", [("com.meta.page.message", "7711"), ("com.meta.page.message", "7722")]),
    ],
)
def test_types_and_subjects(cases: Path, name: str, expected: list[tuple[str, str]]) -> None:
    """Of each event, in order; a single one has the body as its data, as it came."""
    body = (cases / name).read_bytes()
    events = events_of(body)
    assert [(event.type, event.subject) for event in events] == expected
    assert len({event.id for event in events}) == len(events)
    assert len(events) > 1 or events[0].data == body


def test_a_link_that_meta_renewed(cases: Path) -> None:
    """The retry of a message from an ad has the same id, although the signed link to its picture differs."""
    first, again = next(cases.glob("18-*.jsonl")).read_bytes().splitlines()
    assert first != again
    assert [event.id for event in events_of(first)] == [event.id for event in events_of(again)]
