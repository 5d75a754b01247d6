"""One odd update does not change the others: halves of surrogate pairs, NaN, keys that occur twice; and sizes."""

import json
import time

import pytest

from service.events import UNRECOGNIZED, Event, is_json, parse, structured

GOOD = b'{"from":"1","id":"wamid.G","timestamp":"1750000000","type":"text","text":{"body":"x"}}'


def notification(*messages: bytes, beside: bytes = b"", field: bytes = b"messages") -> bytes:
    return (
        b'{"object":"whatsapp_business_account","entry":[{"id":"102","changes":[{"value":{"messaging_product":"whatsapp",'
        b'"metadata":{"phone_number_id":"106"},"messages":['
        + b",".join(messages)
        + b"]"
        + beside
        + b'},"field":"'
        + field
        + b'"}]}]}'
    )


def events_of(body: bytes) -> tuple[Event, ...]:
    return parse(body, received_at=0, nonce="")


def updates(event: Event) -> bytes:
    """Return the raw messages of an event's data."""
    return event.data.partition(b'"messages":[')[2].partition(b"]")[0]


@pytest.mark.parametrize(
    "odd",
    [
        rb'{"from":"2","id":"wamid.O","type":"text","text":{"body":"beach \ud83d"}}',
        rb'{"from":"2","id":"wamid.O","type":"text","text":{"body":"\ude00 \u00e9"}}',
        rb'{"from":"2","id":"wamid.O","type":"text","\ud83d":1}',
        b'{"from":"2","id":"wamid.O","type":"text","price":NaN}',
        b'{ "from" : "2" , "id" : "wamid.O", "type":"text", "price": { "low" : -Infinity , "high":1.50 } }',
    ],
)
def test_it_is_recognized_and_its_bytes_are_kept(odd: bytes) -> None:
    """Alone and among others, which keep the id that they have without it."""
    (alone,) = events_of(notification(odd))
    first, second = events_of(notification(odd, GOOD))
    (good,) = events_of(notification(GOOD))
    assert (first.type, first.subject, first.source) == ("com.whatsapp.message.text", "2", "/102/106")
    assert first.id == alone.id
    assert updates(first) == odd
    assert alone.data == notification(odd)
    assert (second.id, updates(second)) == (good.id, GOOD)


def test_two_halves_differ() -> None:
    """The digest sees them as they were sent."""
    ids = {events_of(notification(GOOD.replace(b'"x"', half)))[0].id for half in (rb'"\ud83d"', rb'"\ud83e"', b'"?"')}
    assert len(ids) == 3


def test_half_a_pair_in_what_updates_share() -> None:
    """Each event has it, as an escape."""
    beside = rb',"contacts":[{"wa_id":"1","profile":{"name":"\ud83d"}}]'
    for event in events_of(notification(GOOD, GOOD.replace(b"wamid.G", b"wamid.H"), beside=beside)):
        assert rb"\ud83d" in event.data or b"contacts" not in event.data
        assert json.loads(event.data)


@pytest.mark.parametrize(
    "ambiguous",
    [
        b'{"from":"2","id":"wamid.A","id":"wamid.B","type":"text"}',
        b'{"from":"2","id":"wamid.A","type":"text","text":{"body":"yes","body":"no"}}',
    ],
)
def test_a_repeated_key_makes_its_update_unrecognized(ambiguous: bytes) -> None:
    """Account and field are kept, and so are both values; the other updates are what they are without it."""
    first, second = events_of(notification(ambiguous, GOOD))
    (good,) = events_of(notification(GOOD))
    assert (first.type, first.source, first.field, first.subject) == (UNRECOGNIZED, "/102/106", "messages", None)
    assert first.partitionkey == "/102/106"
    assert first.id.startswith("106:raw:")
    assert updates(first) == ambiguous
    assert second.id == good.id
    assert events_of(notification(ambiguous, GOOD))[0].id == first.id


@pytest.mark.parametrize(
    "body",
    [
        notification(GOOD, beside=b',"contacts":[{"wa_id":"1","wa_id":"2"}]'),
        notification(GOOD).replace(b'"id":"102"', b'"id":"102","id":"103"'),
        notification(GOOD, beside=b',"errors":[{"code":1}],"metadata":{"phone_number_id":"7","phone_number_id":"8"}'),
        notification(b'{"id":"a","id":"b"}', beside=b',"contacts":[{"wa_id":"1","wa_id":"2"}]'),
    ],
)
def test_a_repeated_key_outside_the_updates_makes_the_body_unrecognized(body: bytes) -> None:
    """It may change what all of them say."""
    (event,) = events_of(body)
    assert (event.type, event.data, event.source) == (UNRECOGNIZED, body, "/unknown")


def test_a_repeated_key_in_errors() -> None:
    """Errors beside messages are an update of their own."""
    first, second = events_of(notification(GOOD, beside=b',"errors":[{"code":1,"code":2}]'))
    assert first.type == "com.whatsapp.message.text"
    assert (second.type, second.source) == (UNRECOGNIZED, "/102/106")


def test_structured_events_keep_the_escape() -> None:
    """Half a pair is JSON by its grammar, NaN is not."""
    half = rb'{"id":"w", "type":"text", "text":{"body":"a  b \ud83d"}}'
    (event,) = events_of(notification(half))
    assert is_json(event)
    assert rb'"data":{"object"' in structured(event)
    assert rb'{"id":"w","type":"text","text":{"body":"a  b \ud83d"}}' in structured(event)
    (number,) = events_of(notification(b'{"id":"w","type":"text","x":NaN}'))
    assert b'"data_base64":"' in structured(number)


@pytest.mark.parametrize(
    "body",
    [
        notification(b'{"id":"w","x":[' + b",".join([b"1"] * 1_000_000) + b"]}"),
        notification(b'{"id":"w","x":[' + b",".join([b"1.5"] * 1_000_000) + b"]}"),
        notification(b'{"id":"w","x":[' + b",".join([b"1"] * 20_001) + b"]}"),
        notification(*(b'{"id":"w%d"}' % number for number in range(30_001))),
        notification(*[b'{"id":"w","x":[' + b",".join([b"-0"] * 19_000) + b"]}"] * 30),
    ],
    ids=["a million numbers", "a million fractions", "one large update", "too many updates", "too many values"],
)
def test_a_body_beyond_a_limit_is_kept_whole(body: bytes) -> None:
    """In well under half a second of CPU, whatever it holds."""
    before = time.process_time()
    (event,) = events_of(body)
    assert time.process_time() - before < 0.5
    assert (event.type, event.data) == (UNRECOGNIZED, body)


@pytest.mark.parametrize(
    ("body", "number"),
    [
        (notification(*(b'{"id":"w%d","type":"text","text":{"body":"hello"}}' % n for n in range(30_000))), 30_000),
        (notification(GOOD.replace(b'"x"', b'"' + b"," * 1_000_000 + b'"')), 1),
        (notification(*([GOOD.replace(b'"x"', b'"' + b",[{:" * 1_000 + b'"')] * 1_000)), 1_000),
        (notification(b'{"id":"w","x":[' + b",".join([b"1"] * 19_000) + b"]}"), 1),
    ],
    ids=["thousands of updates", "a text of commas", "texts of brackets", "a large update"],
)
def test_a_body_within_the_limits_is_split(body: bytes, number: int) -> None:
    """Characters within texts are not counted as values."""
    events = events_of(body)
    assert len(events) == number
    assert UNRECOGNIZED not in {event.type for event in events}
