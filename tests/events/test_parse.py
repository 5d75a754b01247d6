"""Parsing: every update becomes one event, in order and unchanged; and its attributes."""

import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
from cloudevents.core.formats.json import JSONFormat
from cloudevents.core.v1.event import CloudEvent
from hypothesis import given, settings
from hypothesis import strategies as st

from service.events import UNRECOGNIZED, Event, parse, structured
from service.meta import catalogue

AT = 1_795_000_000_000
ARRAYS = (
    "messages statuses message_echoes calls user_actions groups user_preferences state_sync automatic_events "
    "user_id_update"
).split()


class Number(str):
    """A number as it was written, so that 1.0 and 1.00 differ."""

    __slots__ = ()


def read(document: bytes) -> Any:
    return json.loads(document, parse_int=Number, parse_float=Number, parse_constant=Number)


def events_of(body: bytes) -> tuple[Event, ...]:
    return parse(body, received_at=AT, nonce="nonce")


def updates_in(value: Any) -> Iterator[Any]:
    """Yield the updates of a change's value as DESIGN defines them, independently of the code's table."""
    if not isinstance(value, dict):
        yield value
        return
    found = list(_below(value))
    if not found:
        yield value
    else:
        yield from found


def _below(value: dict[str, Any]) -> Iterator[Any]:  # noqa: C901  a test oracle, easier to read in one function
    found: list[Any] = []
    late: list[tuple[int, Any]] = []
    for name, held in value.items():
        if name in ARRAYS and isinstance(held, list):
            found += held
        elif name == "standby" and isinstance(held, dict):
            found += list(_below(held))
        elif name == "history" and isinstance(held, list):
            for chunk in held:
                threads = chunk.get("threads") if isinstance(chunk, dict) else None
                if not isinstance(threads, list) or not threads:
                    found.append(chunk)
                    continue
                for thread in threads:
                    messages = thread.get("messages") if isinstance(thread, dict) else None
                    found += messages if isinstance(messages, list) and messages else [thread]
        elif name == "errors" and held:
            late.append((len(found), held))
    if found:
        for offset, (index, held) in enumerate(late):
            found.insert(index + offset, held)
    yield from found


def all_updates(body: bytes) -> list[Any]:
    found: list[Any] = []
    for entry in read(body)["entry"]:
        changes = entry.get("changes")
        if not changes:
            found.append(entry)
            continue
        for change in changes:
            found += list(updates_in(change["value"]) if "value" in change else [change])
    # An update of errors includes the members beside them: here only the errors are compared.
    return [update["errors"] if isinstance(update, dict) and update.get("errors") else update for update in found]


def only_update(event: Event) -> Any:
    """Return the one update in an event's data."""
    (update,) = all_updates(event.data)
    return update


# Any JSON, with numbers and strings that some parsers misread.
numbers = st.sampled_from(
    "0 -0 1 -1 1.0 1.00 1e5 1E400 0.1 123456789012345678901234567890 1234567890.123456789 NaN -Infinity".split()
)
strings = st.one_of(
    st.text(max_size=12).map(json.dumps),
    st.text(max_size=12).map(lambda text: json.dumps(text, ensure_ascii=False)),
    st.sampled_from(
        [r'"\u00e9"', r'"https:\/\/x"', r'"\ud83d\ude00"', r'"\ud83d"', r'"\ude00x"', r'"\u0000"', r'"a\tb"']
    ),
)


def written(draw: st.DrawFn, depth: int) -> str:
    kind = draw(st.integers(0, 6 if depth else 3))
    if kind == 0:
        return draw(numbers)
    if kind == 1:
        return draw(strings)
    if kind in (2, 3):
        return draw(st.sampled_from(["true", "false", "null", '"x"']))
    if kind == 4:
        return "[" + ",".join(written(draw, depth - 1) for _ in range(draw(st.integers(0, 3)))) + "]"
    return members(draw, draw(st.lists(st.sampled_from("abcdé"), unique=True, max_size=3)), depth)


def members(draw: st.DrawFn, names: list[str], depth: int) -> str:
    space = draw(st.sampled_from(["", "", " ", "\n"]))
    pairs = (
        f"{json.dumps(name, ensure_ascii=draw(st.booleans()))}:{space}{written(draw, depth - 1)}" for name in names
    )
    return "{" + f",{space}".join(pairs) + "}"


@st.composite
def updates(draw: st.DrawFn) -> str:
    known = draw(st.lists(st.sampled_from(["id", "from", "to", "type", "status", "timestamp", "event"]), unique=True))
    ids = [
        f'"{name}":"{draw(st.sampled_from(["wamid.A", "16505551234", "text", "sent", "1795000000"]))}"'
        for name in known
    ]
    rest = members(draw, draw(st.lists(st.sampled_from("abcdé"), unique=True, max_size=3)), 2)[1:-1].strip()
    return "{" + ",".join(filter(None, [*ids, rest])) + "}"


@st.composite
def values(draw: st.DrawFn) -> str:
    parts = []
    for name in draw(
        st.lists(st.sampled_from([*ARRAYS, "errors", "metadata", "contacts", "unknown"]), unique=True, max_size=4)
    ):
        if name in ARRAYS:
            held = "[" + ",".join(draw(st.lists(updates(), max_size=3))) + "]"
        elif name == "errors":
            held = draw(st.sampled_from(["[]", '[{"code":1}]', "null"]))
        elif name == "metadata":
            held = '{"phone_number_id":"106"}'
        elif name == "contacts":
            held = draw(st.sampled_from(['[{"wa_id":"16505551234"},{"wa_id":"2"}]', "[]", "null"]))
        else:
            held = written(draw, 2)
        parts.append(f'"{name}":{held}')
    if draw(st.booleans()):
        thread = '{"id":"t","messages":[' + ",".join(draw(st.lists(updates(), max_size=2))) + "]}"
        parts.append('"history":[{"metadata":{"phase":0},"threads":[' + thread + "]}]")
    if draw(st.booleans()):
        parts.append('"standby":{"messages":[' + ",".join(draw(st.lists(updates(), max_size=2))) + "]}")
    return "{" + ",".join(parts) + "}"


@st.composite
def notifications(draw: st.DrawFn) -> bytes:
    entries = []
    for _ in range(draw(st.integers(1, 2))):
        changes = [
            f'{{"value":{draw(values())},"field":"{draw(st.sampled_from(["messages", "calls", "history", "zzz"]))}"}}'
            for _ in range(draw(st.integers(0, 2)))
        ]
        entries.append(f'{{"id":"102","time":1795000000,"changes":[{",".join(changes)}]}}')
    return f'{{"object":"whatsapp_business_account","entry":[{",".join(entries)}]}}'.encode()


@settings(max_examples=400, deadline=None)
@given(notifications())
def test_every_update_becomes_one_event(body: bytes) -> None:
    """In order, once each, with numbers, escapes and unknown keys unchanged."""
    events = events_of(body)
    assert [only_update(event) for event in events] == all_updates(body)


@settings(max_examples=200, deadline=None)
@given(notifications())
def test_the_bytes_of_an_update_are_the_bytes_received(body: bytes) -> None:
    """An update is not re-encoded: the event's data contains its text exactly as the body does."""
    for event in events_of(body):
        update = only_update(event)
        texts = [text for text in _objects(event.data) if read(text) == update] if isinstance(update, dict) else []
        assert not texts or any(text in body for text in texts)


def _objects(document: bytes) -> Iterator[bytes]:
    text = document.decode()
    decoder = json.JSONDecoder(parse_int=Number, parse_float=Number)
    for index, character in enumerate(text):
        if character == "{":
            try:
                _, end = decoder.raw_decode(text, index)
            except json.JSONDecodeError:  # a brace within a string
                continue
            yield text[index:end].encode()


@settings(max_examples=300, deadline=None)
@given(st.one_of(st.binary(max_size=200), notifications().map(lambda body: body[:-3]), st.text().map(str.encode)))
def test_no_body_makes_it_raise(body: bytes) -> None:
    """A body that is not a notification becomes one event with the whole body."""
    events = events_of(body)
    assert events
    if events[0].type == UNRECOGNIZED and events[0].id.startswith("unknown:"):
        assert [event.data for event in events] == [body]


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"null",
        b"[]",
        b"{}",
        b'{"entry":{}}',
        b'{"object":1,"entry":[{}]}',
        b'{"object":"whatsapp_business_account","entry":[]}',
        b"[" * 100_000,
        b'{"object":"whatsapp_business_account","entry":' + b'[{"changes":' * 3000 + b"1" + b"}]" * 3000 + b"}",
        b'{"object":"whatsapp_business_account","entry":[{"id":"1","id":"2","changes":[]}]}',
        b'{"object":"whatsapp_business_account","entry":[{"id":"\xff"}]}',
        b'\xef\xbb\xbf{"object":"whatsapp_business_account","entry":[{"id":"1"}]}',
        '{"object":"whatsapp_business_account","entry":[{"id":"1"}]}'.encode("utf-16"),
        b'{"entry":[{"id":' + b"1" * 10_000 + b"}]}x",
    ],
)
def test_a_body_that_is_not_a_notification_becomes_one_event(body: bytes) -> None:
    """If it is ambiguous, empty, nested too deeply or not JSON, its data is the body, and its id is always the same."""
    (event,) = events_of(body)
    assert (event.type, event.data, event.source) == (UNRECOGNIZED, body, "/unknown")
    assert events_of(body)[0].id == event.id


@pytest.mark.needs("corpus")
def test_every_update_of_real_payloads_becomes_one_event(corpus: list[Path]) -> None:
    """The ids are the same if the payload is compacted or escaped differently."""
    assert len(corpus) > 200
    for file in corpus:
        body = file.read_bytes()
        document = json.loads(body)
        events = events_of(body)
        if isinstance(document, dict) and document.get("entry"):
            assert [only_update(event) for event in events] == all_updates(body), file.name
            for ascii_only in (True, False):
                compact = json.dumps(document, separators=(",", ":"), ensure_ascii=ascii_only).encode()
                assert [event.id for event in events_of(compact)] == [event.id for event in events], file.name
        else:
            assert [event.data for event in events] == [body]


@pytest.mark.needs("corpus")
def test_parsing_the_data_of_a_real_event_returns_the_event(corpus: list[Path]) -> None:
    """An event's data is a valid notification, so SDKs for Meta's webhooks can parse it."""
    for file in corpus:
        for event in events_of(file.read_bytes()):
            assert events_of(event.data) == (event,), file.name


def beside_another(body: bytes) -> bytes:
    """Return the notification with one more entry."""
    another = b',{"id":"9","changes":[{"value":{"messages":[{"id":"wamid.other"}]},"field":"messages"}]}]}'
    return body.removesuffix(b"]}") + another


@settings(max_examples=400, deadline=None)
@given(notifications())
def test_an_event_is_equal_whether_its_update_was_alone_or_not(body: bytes) -> None:
    """The shortcut for a notification with one update returns the same event as the general case."""
    alone, beside = events_of(body), events_of(beside_another(body))
    assert len(beside) == len(alone) + 1
    for event, same_event in zip(alone, beside, strict=False):
        assert msgspec.structs.replace(event, data=b"") == msgspec.structs.replace(same_event, data=b"")
        assert read(event.data) == read(same_event.data)


@pytest.mark.needs("corpus")
def test_the_data_of_a_single_real_update_is_the_whole_body(corpus: list[Path]) -> None:
    """Including white space, escapes and the order of keys."""
    alone = [body for file in corpus if len(events_of(body := file.read_bytes())) == 1]
    common = [
        body for body in alone if events_of(body)[0].type.startswith(("com.whatsapp.message.", "com.whatsapp.status."))
    ]
    assert len(common) > 50
    assert [events_of(body)[0].data for body in common] == common


def text_message(**more: Any) -> dict[str, Any]:
    return {
        "from": "16505551234",
        "id": "wamid.A",
        "timestamp": "1749416383",
        "type": "text",
        "text": {"body": "hi"},
        **more,
    }


def notification(value: Any, *, field: str | None = "messages", entry: str = "102", **more: Any) -> bytes:
    change = {"value": value} | ({"field": field} if field is not None else {})
    return json.dumps(
        {"object": "whatsapp_business_account", "entry": [{"id": entry, "changes": [change]} | more]}
    ).encode()


def value(**arrays: Any) -> dict[str, Any]:
    metadata = {"display_phone_number": "15550783881", "phone_number_id": "106"}
    return {"messaging_product": "whatsapp", "metadata": metadata, **arrays}


def one(body: bytes) -> Event:
    (event,) = events_of(body)
    return event


def test_the_attributes_of_a_message() -> None:
    """They are as in DESIGN section 5."""
    event = one(notification(value(messages=[text_message()])))
    assert event.type == "com.whatsapp.message.text"
    assert event.id.startswith("106:wamid.A:")
    assert len(event.id.rpartition(":")[2]) == 32
    assert event.source == "/102/106"
    assert event.subject == "16505551234"
    assert event.partitionkey == "106:16505551234"
    assert event.time == 1749416383000
    assert event.received_at == AT
    assert event.field == "messages"
    assert not event.test


@pytest.mark.parametrize(
    ("body", "kind", "key", "subject"),
    [
        (
            notification(value(statuses=[{"id": "w", "status": "read", "recipient_id": "1"}])),
            "status.read",
            "w:read",
            "1",
        ),
        (
            notification(
                value(statuses=[{"id": "w", "status": "read", "recipient_id": "g", "recipient_participant_id": "1"}])
            ),
            "status.read",
            "w:read:1",
            "1",
        ),
        (
            notification(value(message_echoes=[text_message(to="2")]), field="smb_message_echoes"),
            "echo.text",
            "echo:wamid.A",
            "2",
        ),
        (
            notification(value(calls=[{"id": "wacid.1", "event": "connect", "from": "1", "to": "2"}]), field="calls"),
            "call.connect",
            "wacid.1:connect",
            "1",
        ),
        (
            notification(
                value(
                    calls=[{"id": "c", "event": "connect", "from": "1", "to": "2", "direction": "BUSINESS_INITIATED"}]
                ),
                field="calls",
            ),
            "call.connect",
            "c:connect",
            "2",
        ),
        (
            notification(
                value(statuses=[{"id": "c", "status": "RINGING", "type": "call", "recipient_id": "1"}]), field="calls"
            ),
            "call.ringing",
            "c:RINGING",
            "1",
        ),
        (
            notification(value(user_actions=[{"action_type": "click", "click_id": "k"}])),
            "user_action.other",
            "k:click",
            None,
        ),
        (
            notification(value(standby={"messages": [text_message()]}), field="standby"),
            "standby",
            "standby:wamid.A",
            "16505551234",
        ),
        (notification(value(messages=[text_message()]), field="history"), "history", "history:wamid.A", "16505551234"),
        (
            notification({"event": "PARTNER_ADDED"}, field="account_update", time=7),
            "account_update.partner_added",
            "account_update:102:7",
            None,
        ),
        (notification(value(messages=[{"from_user_id": "US.1", "id": "w"}])), "message.unknown", "w", "US.1"),
        (notification(value(messages=[text_message(type="a b")])), "message.other", "wamid.A", "16505551234"),
        (notification(value(messages=[text_message()]), field=None), "message.text", ":wamid.A", "16505551234"),
        (notification({"x": 1}, field=None), "unrecognized", "raw", None),
        (notification(value(messages=[{"from": 16505551234, "id": 5}])), "message.unknown", "5", "16505551234"),
    ],
)
def test_type_key_and_subject(body: bytes, kind: str, key: str, subject: str | None) -> None:
    """There is a case for each row of the tables of DESIGN section 5."""
    event = one(body)
    assert event.type == f"com.whatsapp.{kind}"
    assert event.id.partition(":")[2].rpartition(":")[0] == key
    assert event.subject == subject


def test_notifications_of_other_objects() -> None:
    """The same URL may be used for a Page: the object is part of the event's type."""
    body = json.dumps(
        {"object": "page", "entry": [{"id": "9", "changes": [{"field": "feed", "value": {"messages": [1]}}]}]}
    )
    event = one(body.encode())
    assert (event.type, event.source, event.field) == ("com.meta.page.feed", "/9", "feed")


def test_an_entry_without_changes_becomes_one_event() -> None:
    """Meta sends such entries if "Include values" is off."""
    event = one(b'{"object":"user","entry":[{"id":"9","time":5,"changed_fields":["name"]}]}')
    assert (event.type, event.time) == (UNRECOGNIZED, 5000)
    assert read(event.data)["entry"][0]["changed_fields"] == ["name"]


def test_each_update_of_a_batch_keeps_its_contact() -> None:
    """Each message keeps the contact that it names; a contact that no message names stays with the first message."""
    contacts = [{"wa_id": "1"}, {"user_id": "US.2"}, {"wa_id": "9"}]
    messages = [{"id": "a", "from": "1"}, {"id": "b", "from_user_id": "US.2"}, {"id": "c", "from": "3"}]
    events = events_of(notification(value(contacts=contacts, messages=messages)))
    event_contacts = [read(event.data)["entry"][0]["changes"][0]["value"].get("contacts") for event in events]
    assert event_contacts == [[{"wa_id": "1"}, {"wa_id": "9"}], [{"user_id": "US.2"}], None]


def test_errors_beside_updates_are_one_more_update() -> None:
    """So they are not lost; errors without other updates are an update too."""
    both = events_of(notification(value(messages=[text_message()], errors=[{"code": 1}])))
    assert [event.type for event in both] == ["com.whatsapp.message.text", "com.whatsapp.messages.errors"]
    assert "errors" not in read(both[0].data)["entry"][0]["changes"][0]["value"]
    assert "messages" not in read(both[1].data)["entry"][0]["changes"][0]["value"]
    alone = one(notification(value(errors=[{"code": 1}])))
    assert alone.type == "com.whatsapp.messages.errors"


def test_retries_have_the_same_id() -> None:
    """The order of keys, escapes, white space, other updates and a new media URL do not change the id."""
    image = {"id": "i", "mime_type": "image/jpeg", "url": "https://one", "sha256": "s"}
    first = one(notification(value(messages=[{"from": "1", "id": "w", "image": image, "text": {"body": "é/"}}])))
    again = {"text": {"body": "é/"}, "image": {**image, "url": "https://two"}, "id": "w", "from": "1"}
    body = json.dumps(
        {
            "object": "whatsapp_business_account",
            "entry": [
                {"id": "102", "changes": [{"field": "messages", "value": value(messages=[again, text_message()])}]}
            ],
        },
        ensure_ascii=False,
        indent=1,
    )
    assert events_of(body.encode())[0].id == first.id


@pytest.mark.parametrize(
    "different",
    [
        text_message(id="wamid.B"),
        text_message(text={"body": "ho"}),
        text_message(extra=1),
        text_message(extra=1.0),
        text_message(extra="1"),
        text_message(extra=[1]),
        text_message(referral={"url": "https://a"}),
    ],
)
def test_two_different_updates_have_two_ids(different: dict[str, Any]) -> None:
    """Any difference except a media URL changes the id."""
    others = [text_message(), text_message(extra=2), text_message(referral={"url": "https://b"})]
    ids = {one(notification(value(messages=[update]))).id for update in [different, *others]}
    assert len(ids) == len(others) + 1


@pytest.mark.parametrize("character", ["é", "/", "😀", "\x7f", "\u0001", "\n", '"', "\\", "\ud7ff", "\uffff", "A"])
def test_escapes_do_not_change_the_id(character: str) -> None:
    """The data has the bytes as received, and a duplicate key is still found among escapes."""
    plain = notification(value(messages=[text_message(text={"body": "@@"})]))
    units = character.encode("utf-16-be").hex()
    escaped = "".join(f"\\u{units[index : index + 4]}" for index in range(0, len(units), 4)).encode()
    written = json.dumps(character, ensure_ascii=False)[1:-1].encode()
    first, second = one(plain.replace(b"@@", escaped)), one(plain.replace(b"@@", written))
    assert first.id == second.id
    assert escaped in first.data
    assert written in second.data
    repeated = plain.replace(b"@@", escaped).replace(b'"type"', b'"id": "x", "type"')
    assert one(repeated).type == UNRECOGNIZED


def test_numbers_are_compared_as_written() -> None:
    """1.0 and 1.00 are two updates, as are 0 and -0."""
    bodies = [
        notification(value(messages=[{"id": "w", "n": "N"}])).replace(b'"N"', n)
        for n in (b"1.0", b"1.00", b"1", b"0", b"-0")
    ]
    assert len({one(body).id for body in bodies}) == 5


def test_the_same_update_in_another_field_or_number_has_another_id() -> None:
    """An id contains the field and the business's phone number."""
    bodies = [
        notification(value(messages=[text_message()]), field=field)
        for field in ("messages", "history", "standby", "zzz", None)
    ]
    bodies.append(notification({"metadata": {"phone_number_id": "107"}, "messages": [text_message()]}))
    assert len({one(body).id for body in bodies}) == len(bodies)


def test_each_use_of_the_test_button_is_a_new_event() -> None:
    """Meta sends entry id 0 with a constant message id: the event is marked, and the nonce makes its id unique."""
    body = notification(value(messages=[text_message()]), entry="0")
    first, second = (parse(body, received_at=AT, nonce=nonce)[0] for nonce in ("a", "b"))
    assert first.test
    assert first.id != second.id
    assert parse(body, received_at=AT, nonce="a")[0] == first


@pytest.mark.parametrize(
    ("stamp", "milliseconds"),
    [
        ("1749416383", 1749416383000),
        (1749416383, 1749416383000),
        ("1749416383123", 1749416383123),
        ("x", AT),
        (-5, AT),
        ("9" * 30, AT),
        (None, AT),
        (1.5, AT),
    ],
)
def test_the_time_of_an_event(stamp: Any, milliseconds: int) -> None:
    """It is Meta's timestamp, as text or number, or else the time of receipt."""
    event = one(notification(value(messages=[text_message(timestamp=stamp)])))
    assert event.time == milliseconds
    assert event.own_time == (milliseconds if milliseconds != AT else 0)


def test_the_time_of_an_entry_is_not_the_updates_own() -> None:
    """It may differ for equal ids, so deduplication must not use it."""
    update = {"id": "wamid.1", "from": "16505551234"}
    first, retried = (one(notification(value(messages=[update]), time=at)) for at in (1749416383, 1749416384))
    assert first.id == retried.id
    assert first.time != retried.time
    assert first.own_time == retried.own_time == 0


def test_attributes_are_safe_for_headers() -> None:
    """Ids, sources, subjects and keys are printable ASCII without spaces, and limited in length."""
    event = one(notification(value(messages=[{"id": "a\r\nb " + "x" * 9999, "from": "é\x00"}]), entry="1\n2"))
    for word in (event.id, event.source, event.subject or "", event.partitionkey):
        assert word.isascii()
        assert word.isprintable()
        assert " " not in word
        assert len(word) < 700


def test_a_body_whose_events_would_be_too_large_becomes_one_event() -> None:
    """A large value beside a thousand updates is not copied into each event."""
    body = notification(value(note="x" * 100_000, messages=[{"id": str(number)} for number in range(1000)]))
    (event,) = events_of(body)
    assert (event.type, event.data) == (UNRECOGNIZED, body)


def test_the_nth_contact_stays_with_the_nth_message() -> None:
    """If one person's thousand messages come with a contact each, each message keeps only its own contact."""
    messages = [{"from": "1", "id": str(number)} for number in range(1000)]
    events = events_of(notification(value(contacts=[{"wa_id": "1", "n": n} for n in range(1000)], messages=messages)))
    assert len(events) == 1000
    for number in (0, 500, 999):
        content = read(events[number].data)["entry"][0]["changes"][0]["value"]
        assert [contact["n"] for contact in content["contacts"]] == [str(number)]


def test_too_many_contacts_per_message_become_one_event() -> None:
    """Copying all contacts into each message would exhaust the memory."""
    messages = [{"from": "1", "id": str(number)} for number in range(3000)]
    body = notification(value(contacts=[{"wa_id": "1"}] * 2999, messages=messages))
    started = time.monotonic()
    (event,) = events_of(body)
    assert (event.type, event.data) == (UNRECOGNIZED, body)
    assert time.monotonic() - started < 2


def test_a_batch_of_1000() -> None:
    """The largest notification that Meta sends becomes 1000 events, each with its own message and contact."""
    events = events_of(catalogue.batch(1000))
    assert len({event.id for event in events}) == 1000
    for event in (events[0], events[999]):
        content = read(event.data)["entry"][0]["changes"][0]["value"]
        assert {contact["wa_id"] for contact in content["contacts"]} == {content["messages"][0]["from"]}


@pytest.mark.parametrize("kind", catalogue.kinds())
def test_the_catalogue_is_recognized(kind: str) -> None:
    """Each of our own samples is parsed into events with a type."""
    for event in events_of(catalogue.notification(kind)):
        assert event.type != UNRECOGNIZED


@pytest.mark.parametrize("kind", catalogue.kinds())
def test_the_catalogue_has_new_ids_at_every_run(kind: str) -> None:
    """Also within one second, so that the events of a second run are not duplicates."""
    bodies = [catalogue.notification(kind, now=1_800_000_000) for _ in range(5)]
    assert len({event.id for body in bodies for event in events_of(body)}) > 2


@pytest.mark.parametrize(
    "body",
    [catalogue.notification("message text"), b'{"a": "not ours"}', b"no JSON \xff"],
    ids=["a message", "another object", "no JSON"],
)
def test_the_cloudevents_sdk_decodes_structured_events(body: bytes) -> None:
    """It returns the same attributes and data."""
    (event,) = events_of(body)
    read_back = JSONFormat().read(CloudEvent, structured(event))
    assert (read_back.get_id(), read_back.get_type(), read_back.get_source()) == (event.id, event.type, event.source)
    data = read_back.get_data()
    assert data == (read(event.data) if isinstance(data, dict) else event.data)
