"""Messenger and Instagram: one event per item of `messaging` and `standby`."""

import json
from typing import Any

import pytest

from service.events import Event, parse

PAGE, PERSON = {"id": "9010"}, {"id": "7711"}


def events_of(name: str, **entry: Any) -> tuple[Event, ...]:
    body = {"object": name, "entry": [{"id": "9010", "time": 1750000000456, **entry}]}
    return parse(json.dumps(body).encode(), received_at=0, nonce="")


def item(**members: Any) -> dict[str, Any]:
    return {"sender": PERSON, "recipient": PAGE, "timestamp": 1750000000123, **members}


@pytest.mark.parametrize("name", ["page", "instagram"])
def test_one_event_per_item(name: str) -> None:
    """With its own bytes, in order; the account is the page."""
    items = [item(message={"mid": "m_1", "text": "hi"}), item(sender={"id": "7722"}, read={"watermark": 5})]
    first, second = events_of(name, messaging=items)
    assert (first.type, first.subject, first.source) == (f"com.meta.{name}.message", "7711", "/9010")
    assert (first.partitionkey, first.field, first.time) == ("9010:7711", "messaging", 1750000000123)
    assert first.id.startswith("9010:message:7711:m_1:")
    assert (second.type, second.partitionkey) == (f"com.meta.{name}.read", "9010:7722")
    assert second.id.startswith("9010:read:7722:5:")
    assert [json.loads(event.data)["entry"][0]["messaging"] for event in (first, second)] == [[each] for each in items]
    assert events_of(name, messaging=items[:1])[0].id == first.id


@pytest.mark.parametrize(
    ("members", "kind", "key"),
    [
        ({"message": {"mid": "m", "is_echo": True}}, "echo", "echo:9010:m"),
        ({"postback": {"mid": "m"}}, "postback", "postback:7711:m"),
        ({"delivery": {"watermark": 8}}, "delivery", "delivery:7711:8"),
        ({"optin": {"type": "x"}}, "optin", "optin:7711:1750000000123"),
        ({"pass_thread_control": {}}, "pass_thread_control", "pass_thread_control:7711:1750000000123"),
        ({"something_new": {}}, "other", "other:7711:1750000000123"),
        ({"message": "no object"}, "message", "message:7711:1750000000123"),
    ],
)
def test_what_happened_is_in_the_type(members: dict[str, Any], kind: str, key: str) -> None:
    """An echo's person is its recipient."""
    (event,) = events_of("page", messaging=[item(**members)])
    assert event.type == f"com.meta.page.{kind}"
    assert event.id.startswith(f"9010:{key}:")
    assert event.subject == ("9010" if kind == "echo" else "7711")


def test_standby_has_types_of_its_own() -> None:
    """A filter on messages to answer does not match the messages of another application."""
    first, second = events_of("page", messaging=[item(message={"mid": "a"})], standby=[item(message={"mid": "a"})])
    assert (first.type, second.type) == ("com.meta.page.message", "com.meta.page.standby.message")
    assert second.field == "standby"
    assert first.id != second.id


@pytest.mark.parametrize("entry", [{"messaging": ["no object"]}, {"messaging": [{}], "changes": [{"field": "feed"}]}])
def test_what_cannot_be_split_stays_one_event(entry: dict[str, Any]) -> None:
    """Nothing of it is lost."""
    (event,) = events_of("page", **entry)
    assert json.loads(event.data)["entry"][0].items() >= entry.items()


def test_a_change_of_a_page_is_as_before() -> None:
    """Without `messaging`, the type is the object and field."""
    (event,) = events_of("page", changes=[{"field": "feed", "value": {"item": "post"}}])
    assert event.type == "com.meta.page.feed"
