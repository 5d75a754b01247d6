"""The text of `events list --show-text`."""

import json
from typing import Any

import pytest

from service.cli.events.event_summary import summary
from service.events import Event, parse
from service.meta import catalogue

EXPECTED = {
    "message text": "Is it in stock? ¿Y en azul? 🙂",
    "message image": "The parcel",
    "message audio": "[audio]",
    "message video": "It works",
    "message document": "order.pdf",
    "message sticker": "[sticker]",
    "message location": "Office",
    "message contacts": "Grace Hopper",
    "message button": "Confirm",
    "message interactive, button reply": "Yes",
    "message interactive, list reply": "Green tea",
    "message interactive, flow reply": "Sent",
    "message interactive, call permission": "[call_permission_reply]",
    "message order": "With care, please",
    "message reaction": "👍",
    "message reaction, removed": "[reaction removed]",
    "message unsupported": "[unsupported]",
    "message edit": "Two, not one",
    "message revoke": "[revoke]",
    "status sent": "sent",
    "status failed": "failed: Message undeliverable",
    "echo from the app": "Sent from the phone",
    "history chunk": "Long ago",
    "standby message": "Somebody else answers me",
    "call offered": "connect",
    "call ringing": "RINGING",
    "template approved": "",
    "unknown field": "",
}


def events(kind: str) -> tuple[Event, ...]:
    return parse(catalogue.notification(kind), received_at=1, nonce="n")


@pytest.mark.parametrize("kind", EXPECTED)
def test_a_summary(kind: str) -> None:
    """A text, a caption, a title or an emoji; else the type in brackets; of a status, the status."""
    assert summary(events(kind)[0]) == EXPECTED[kind]


@pytest.mark.parametrize("kind", catalogue.kinds())
def test_every_kind_has_one(kind: str) -> None:
    """One line of at most 40 characters and an ellipsis."""
    for event in events(kind):
        text = summary(event)
        assert len(text) <= 41
        assert "\n" not in text


def of(message: Any) -> str:
    value = {"metadata": {"phone_number_id": "1"}, "messages": [message]}
    body = {"object": "whatsapp_business_account", "entry": [{"changes": [{"field": "messages", "value": value}]}]}
    (event,) = parse(json.dumps(body).encode(), received_at=1, nonce="n")
    return summary(event)


def test_a_long_text_is_cut() -> None:
    """After 40 characters; line breaks and repeated blanks become one blank."""
    assert of({"type": "text", "text": {"body": "x" * 40}}) == "x" * 40
    assert of({"type": "text", "text": {"body": "x" * 41}}) == "x" * 40 + "…"
    assert of({"type": "text", "text": {"body": " one\r\n\n two\tthree "}}) == "one two three"


@pytest.mark.parametrize("odd", [None, 5, "x", [], {}, [[]], {"body": 5}, {"body": None}, {"name": {}}, [None]])
@pytest.mark.parametrize(
    "kind", ["text", "image", "button", "interactive", "reaction", "location", "contacts", "order", "system", "edit"]
)
def test_odd_shapes_do_not_raise(kind: str, odd: Any) -> None:
    """Meta may send any JSON in any place; the kind is named then."""
    assert of({"type": kind, kind: odd}) in (f"[{kind}]", "[reaction removed]")
    assert of({"type": odd, kind: odd}) == ("[x]" if odd == "x" else "")
    assert isinstance(of(odd), str)


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"no JSON \xff",
        b"[]",
        b"5",
        b"null",
        b"[" * 100_000,
        b'{"entry":[5]}',
        b'{"entry":[{"changes":[{"value":{"messages":5}}]}]}',
    ],
)
def test_other_data_has_none(data: bytes) -> None:
    """A body that is no notification, and one that is nested too deep."""
    (event,) = parse(b"x", received_at=1, nonce="n")
    values = {name: getattr(event, name) for name in event.__struct_fields__}
    assert summary(Event(**{**values, "data": data})) == ""


def test_an_edit_of_an_edit_is_not_followed_forever() -> None:
    """Nested messages are read one level deep."""
    message: dict[str, Any] = {"type": "text", "text": {"body": "x"}}
    for _ in range(200):
        message = {"type": "edit", "edit": {"message": message}}
    assert of(message) == "[edit]"
