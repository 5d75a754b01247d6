"""Events: what goes in comes out, once each, in order, unchanged."""

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
    return json.loads(document, parse_int=Number, parse_float=Number)


def events_of(body: bytes) -> tuple[Event, ...]:
    return parse(body, received_at=AT, nonce="nonce")


def updates_in(value: Any) -> Iterator[Any]:
    """Find the updates of a change's value, by DESIGN's words and not by the code's table."""
    if not isinstance(value, dict):
        yield value
        return
    found = list(_below(value))
    if not found:
        yield value
    else:
        yield from found


def _below(value: dict[str, Any]) -> Iterator[Any]:  # noqa: C901  an oracle in one piece
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
    # Errors are an update together with what they stand beside: here they are compared by themselves.
    return [update["errors"] if isinstance(update, dict) and update.get("errors") else update for update in found]


def only_update(event: Event) -> Any:
    """Take the one update out of an event's data."""
    (update,) = all_updates(event.data)
    return update


# Any JSON, with numbers and strings that parsers get wrong.
numbers = st.sampled_from(
    "0 -0 1 -1 1.0 1.00 1e5 1E400 0.1 123456789012345678901234567890 1234567890.123456789".split()
)
strings = st.one_of(
    st.text(max_size=12).map(json.dumps),
    st.text(max_size=12).map(lambda text: json.dumps(text, ensure_ascii=False)),
    st.sampled_from([r'"\u00e9"', r'"https:\/\/x"', r'"\ud83d\ude00"', r'"\u0000"', r'"a\tb"']),
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
def test_what_goes_in_comes_out(body: bytes) -> None:
    """Every update once, in order, with numbers, escapes and unknown keys as they were; each event holds one."""
    found = events_of(body)
    assert [only_update(event) for event in found] == all_updates(body)


@settings(max_examples=200, deadline=None)
@given(notifications())
def test_the_bytes_of_an_update_are_the_bytes_received(body: bytes) -> None:
    """An update is not written anew: its own text stands in the event's data as it stood in the body."""
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
    """What is no notification is kept whole."""
    found = events_of(body)
    assert found
    if found[0].type == UNRECOGNIZED and found[0].id.startswith("unknown:"):
        assert [event.data for event in found] == [body]


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
        b'{"object":"whatsapp_business_account","entry":[{"id":NaN}]}',
        b'{"object":"whatsapp_business_account","entry":[{"id":"\\ud800"}]}',
        b'{"object":"whatsapp_business_account","entry":[{"id":"\xff"}]}',
        b'\xef\xbb\xbf{"object":"whatsapp_business_account","entry":[{"id":"1"}]}',
        '{"object":"whatsapp_business_account","entry":[{"id":"1"}]}'.encode("utf-16"),
        b'{"entry":[{"id":' + b"1" * 10_000 + b"}]}x",
    ],
)
def test_a_body_that_is_no_notification_is_kept_whole(body: bytes) -> None:
    """Ambiguous, empty, too deep or no JSON: one event, the body as its data, the same id each time."""
    (event,) = events_of(body)
    assert (event.type, event.data, event.source) == (UNRECOGNIZED, body, "/unknown")
    assert events_of(body)[0].id == event.id


@pytest.mark.needs("corpus")
def test_real_payloads_are_conserved(corpus: list[Path]) -> None:
    """All of the corpus: conserved, as written and compacted and escaped, with the same ids."""
    assert len(corpus) > 200
    for file in corpus:
        body = file.read_bytes()
        document = json.loads(body)
        found = events_of(body)
        if isinstance(document, dict) and document.get("entry"):
            assert [only_update(event) for event in found] == all_updates(body), file.name
            for ascii_only in (True, False):
                compact = json.dumps(document, separators=(",", ":"), ensure_ascii=ascii_only).encode()
                assert [event.id for event in events_of(compact)] == [event.id for event in found], file.name
        else:
            assert [event.data for event in found] == [body]


@pytest.mark.needs("corpus")
def test_real_payloads_stay_one_event_each_when_parsed_again(corpus: list[Path]) -> None:
    """An event's data is a notification: taking it apart gives the event, so SDKs read it as they read Meta's."""
    for file in corpus:
        for event in events_of(file.read_bytes()):
            assert events_of(event.data) == (event,), file.name


def beside_another(body: bytes) -> bytes:
    """The notification with one more entry behind its own."""
    another = b',{"id":"9","changes":[{"value":{"messages":[{"id":"wamid.other"}]},"field":"messages"}]}]}'
    return body.removesuffix(b"]}") + another


@settings(max_examples=400, deadline=None)
@given(notifications())
def test_an_update_says_the_same_alone_and_in_company(body: bytes) -> None:
    """One that comes alone is kept as it came, others are taken apart: nobody can tell from the event."""
    alone, among = events_of(body), events_of(beside_another(body))
    assert len(among) == len(alone) + 1
    for one_way, other in zip(alone, among, strict=False):
        assert msgspec.structs.replace(one_way, data=b"") == msgspec.structs.replace(other, data=b"")
        assert read(one_way.data) == read(other.data)


@pytest.mark.needs("corpus")
def test_a_real_update_that_comes_alone_is_kept_as_it_came(corpus: list[Path]) -> None:
    """White space, escapes and order included."""
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
    """As DESIGN section 5 has them."""
    event = one(notification(value(messages=[text_message()])))
    assert event.type == "com.whatsapp.message.text"
    assert event.id.startswith("106:wamid.A:")
    assert len(event.id.rpartition(":")[2]) == 16
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
            "messages",
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
    """Each row of the tables of DESIGN section 5."""
    event = one(body)
    assert event.type == f"com.whatsapp.{kind}"
    assert event.id.partition(":")[2].rpartition(":")[0] == key
    assert event.subject == subject


def test_other_objects() -> None:
    """The same URL may be used for a Page: such events say so."""
    body = json.dumps(
        {"object": "page", "entry": [{"id": "9", "changes": [{"field": "feed", "value": {"messages": [1]}}]}]}
    )
    event = one(body.encode())
    assert (event.type, event.source, event.field) == ("com.meta.page.feed", "/9", "feed")


def test_fields_without_values() -> None:
    """With "Include values" off there are no changes: the entry is kept."""
    event = one(b'{"object":"user","entry":[{"id":"9","time":5,"changed_fields":["name"]}]}')
    assert (event.type, event.time) == (UNRECOGNIZED, 5000)
    assert read(event.data)["entry"][0]["changed_fields"] == ["name"]


def test_an_update_of_a_batch_takes_its_contact_along() -> None:
    """Each message has the contact that it names; one that nobody names goes with the first; none is lost."""
    contacts = [{"wa_id": "1"}, {"user_id": "US.2"}, {"wa_id": "9"}]
    messages = [{"id": "a", "from": "1"}, {"id": "b", "from_user_id": "US.2"}, {"id": "c", "from": "3"}]
    found = events_of(notification(value(contacts=contacts, messages=messages)))
    with_contacts = [read(event.data)["entry"][0]["changes"][0]["value"].get("contacts") for event in found]
    assert with_contacts == [[{"wa_id": "1"}, {"wa_id": "9"}], [{"user_id": "US.2"}], None]


def test_errors_beside_an_array_are_an_update_of_their_own() -> None:
    """A failed call's errors do not get lost beside the call, and stand alone where nothing else is."""
    both = events_of(notification(value(messages=[text_message()], errors=[{"code": 1}])))
    assert [event.type for event in both] == ["com.whatsapp.message.text", "com.whatsapp.messages"]
    assert "errors" not in read(both[0].data)["entry"][0]["changes"][0]["value"]
    assert "messages" not in read(both[1].data)["entry"][0]["changes"][0]["value"]
    alone = one(notification(value(errors=[{"code": 1}])))
    assert alone.type == "com.whatsapp.messages"


def test_retries_have_the_same_id() -> None:
    """Other key order, escapes, white space, neighbours and a fresh media link: still the same event."""
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
    """Anything but a media link makes a difference."""
    others = [text_message(), text_message(extra=2), text_message(referral={"url": "https://b"})]
    ids = {one(notification(value(messages=[update]))).id for update in [different, *others]}
    assert len(ids) == len(others) + 1


@pytest.mark.parametrize("character", ["é", "/", "😀", "\x7f", "\u0001", "\n", '"', "\\", "\ud7ff", "\uffff", "A"])
def test_however_it_is_escaped(character: str) -> None:
    """The same text, escaped or not, is the same update; the bytes stay as they came."""
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


def test_numbers_count_as_written() -> None:
    """1.0 and 1.00 are two updates, as is -0."""
    bodies = [
        notification(value(messages=[{"id": "w", "n": "N"}])).replace(b'"N"', n)
        for n in (b"1.0", b"1.00", b"1", b"0", b"-0")
    ]
    assert len({one(body).id for body in bodies}) == 5


def test_the_same_update_elsewhere_is_another() -> None:
    """The namespace of a key is its field and its number."""
    bodies = [
        notification(value(messages=[text_message()]), field=field)
        for field in ("messages", "history", "standby", "zzz", None)
    ]
    bodies.append(notification({"metadata": {"phone_number_id": "107"}, "messages": [text_message()]}))
    assert len({one(body).id for body in bodies}) == len(bodies)


def test_the_test_button_is_seen_each_time() -> None:
    """Entry id 0 with a constant message id: marked, and made distinct by the nonce."""
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
def test_the_time(stamp: Any, milliseconds: int) -> None:
    """Meta's timestamp, as text or number, else when it was received."""
    event = one(notification(value(messages=[text_message(timestamp=stamp)])))
    assert event.time == milliseconds
    assert event.own_time == (milliseconds if milliseconds != AT else 0)


def test_the_time_of_an_entry_is_not_the_updates_own() -> None:
    """It may differ where the id does not, so nothing that tells repeats may be built on it."""
    update = {"id": "wamid.1", "from": "16505551234"}
    first, again = (one(notification(value(messages=[update]), time=at)) for at in (1749416383, 1749416384))
    assert first.id == again.id
    assert first.time != again.time
    assert first.own_time == again.own_time == 0


def test_words_are_fit_for_headers() -> None:
    """What goes into ids, sources and subjects is printable, has no blanks and an end."""
    event = one(notification(value(messages=[{"id": "a\r\nb " + "x" * 9999, "from": "é\x00"}]), entry="1\n2"))
    for word in (event.id, event.source, event.subject or "", event.partitionkey):
        assert word.isascii()
        assert word.isprintable()
        assert " " not in word
        assert len(word) < 700


def test_what_would_grow_out_of_proportion_is_kept_whole() -> None:
    """A large value beside many updates is not copied a thousand times."""
    body = notification(value(note="x" * 100_000, messages=[{"id": str(number)} for number in range(1000)]))
    (event,) = events_of(body)
    assert (event.type, event.data) == (UNRECOGNIZED, body)


def test_contacts_that_stand_beside_their_messages_go_with_them() -> None:
    """One person's messages, with a contact each: every message has one contact, and the batch is not blown up."""
    made = [{"from": "1", "id": str(number)} for number in range(1000)]
    found = events_of(notification(value(contacts=[{"wa_id": "1", "n": n} for n in range(1000)], messages=made)))
    assert len(found) == 1000
    for number in (0, 500, 999):
        held = read(found[number].data)["entry"][0]["changes"][0]["value"]
        assert [contact["n"] for contact in held["contacts"]] == [str(number)]


def test_many_that_name_many_are_kept_whole() -> None:
    """Contacts times messages would fill the memory."""
    made = [{"from": "1", "id": str(number)} for number in range(3000)]
    body = notification(value(contacts=[{"wa_id": "1"}] * 2999, messages=made))
    started = time.monotonic()
    (event,) = events_of(body)
    assert (event.type, event.data) == (UNRECOGNIZED, body)
    assert time.monotonic() - started < 2


def test_a_batch_of_1000() -> None:
    """The largest that Meta sends: 1000 events, each with its own message and contact."""
    found = events_of(catalogue.batch(1000))
    assert len({event.id for event in found}) == 1000
    for event in (found[0], found[999]):
        held = read(event.data)["entry"][0]["changes"][0]["value"]
        assert {contact["wa_id"] for contact in held["contacts"]} == {held["messages"][0]["from"]}


@pytest.mark.parametrize("kind", catalogue.kinds())
def test_the_catalogue_is_recognized(kind: str) -> None:
    """Each of our own samples is taken apart into events with a type."""
    for event in events_of(catalogue.notification(kind)):
        assert event.type != UNRECOGNIZED


@pytest.mark.parametrize("kind", catalogue.kinds())
def test_the_catalogue_has_new_ids_at_every_run(kind: str) -> None:
    """Within one second too: what is sent again by a second run is no repeat."""
    bodies = [catalogue.notification(kind, now=1_800_000_000) for _ in range(5)]
    assert len({event.id for body in bodies for event in events_of(body)}) > 2


@pytest.mark.parametrize(
    "body",
    [catalogue.notification("message text"), b'{"a": "not ours"}', b"no JSON \xff"],
    ids=["a message", "another object", "no JSON"],
)
def test_cloudevents_reads_what_we_write(body: bytes) -> None:
    """The judge is the CloudEvents SDK."""
    (event,) = events_of(body)
    read_back = JSONFormat().read(CloudEvent, structured(event))
    assert (read_back.get_id(), read_back.get_type(), read_back.get_source()) == (event.id, event.type, event.source)
    data = read_back.get_data()
    assert data == (read(event.data) if isinstance(data, dict) else event.data)
