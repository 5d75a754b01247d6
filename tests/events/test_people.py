"""Who an event is about: identifiers by their shape, groups, direction, and the key whose events stay in order."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.events import Event, parse

PHONE, BUSINESS = "106540352242922", "15550783881"
NUMBERS = st.from_regex(r"[1-9][0-9]{6,14}", fullmatch=True)
USER_IDS = st.from_regex(r"[A-Z]{2}\.[0-9A-Za-z]{1,128}", fullmatch=True)
PARENTS = st.from_regex(r"[A-Z]{2}\.ENT\.[0-9A-Za-z]{1,128}", fullmatch=True)


def parsed(field: str, **value: Any) -> tuple[Event, ...]:
    metadata = {"display_phone_number": "+1 555 078-3881", "phone_number_id": PHONE}
    change = {"field": field, "value": {"messaging_product": "whatsapp", "metadata": metadata, **value}}
    body = {"object": "whatsapp_business_account", "entry": [{"id": "102", "changes": [change]}]}
    return parse(json.dumps(body).encode(), received_at=0, nonce="")


def message(*, contacts: Any = None, **members: Any) -> Event:
    (event,) = parsed("messages", messages=[{"id": "wamid.1", "type": "text", **members}], contacts=contacts or [])
    return event


@given(number=st.none() | NUMBERS, userid=st.none() | USER_IDS, parent=st.none() | PARENTS, swapped=st.booleans())
def test_the_key_is_the_user_id_else_the_number(
    *, number: str | None, userid: str | None, parent: str | None, swapped: bool
) -> None:
    """Whichever member has which identifier; each is an attribute only if it is known."""
    names = ("from_user_id", "from") if swapped else ("from", "from_user_id")
    values = zip((*names, "from_parent_user_id"), (number, userid, parent), strict=True)
    event = message(**{name: value for name, value in values if value})
    person = userid or number or parent
    assert (event.waid, event.userid, event.parentuserid) == (number, userid, parent)
    assert event.subject == person
    assert event.partitionkey == (f"{PHONE}:{person}" if person else f"/102/{PHONE}")
    assert event.direction == "inbound"


@pytest.mark.parametrize(
    ("contacts", "expected"),
    [
        ([{"wa_id": "1650", "user_id": "US.1"}], "US.1"),
        ([{"wa_id": "1650", "user_id": "US.1"}, {"wa_id": "1651", "user_id": "US.2"}], "US.1"),
        ([{"wa_id": "1651", "user_id": "US.2"}], None),
        ([{"wa_id": "1650", "user_id": "US.1"}, {"wa_id": "1650", "user_id": "US.2"}], None),
        ([{"wa_id": 1650, "user_id": "US.1"}], "US.1"),
        ("x", None),
        ([None, {"user_id": "US.1"}], None),
    ],
)
def test_the_contact_that_names_the_same_person(contacts: Any, expected: str | None) -> None:
    """It completes the identifiers, if exactly one does."""
    assert message(**{"from": "1650"}, contacts=contacts).userid == expected


@pytest.mark.parametrize(
    ("members", "now", "before"),
    [
        (
            {"from": "1650", "system": {"type": "user_changed_number", "wa_id": "1651"}},
            (None, "1651"),
            (None, "1650"),
        ),
        (
            {"from": "1650", "system": {"type": "customer_changed_number", "new_wa_id": "1651"}},
            (None, "1651"),
            (None, "1650"),
        ),
        (
            {"system": {"type": "user_changed_user_id", "user_id": "US.2", "previous_user_id": "US.1"}},
            ("US.2", None),
            ("US.1", None),
        ),
        (
            {"from": "1650", "from_user_id": "US.1", "system": {"wa_id": "1651", "user_id": "US.2"}},
            ("US.2", "1651"),
            ("US.1", "1650"),
        ),
        (
            {"from": "1650", "system": {"type": "customer_identity_changed", "customer": "1650"}},
            (None, "1650"),
            (None, None),
        ),
    ],
)
def test_identity_changes(members: dict[str, Any], now: tuple[str | None, ...], before: tuple[str | None, ...]) -> None:
    """The new identifiers are the person's, the old ones are attributes of their own; also in older forms."""
    event = message(**{**members, "type": "system"})
    assert (event.userid, event.waid) == now
    assert (event.previoususerid, event.previouswaid) == before
    assert event.subject == (now[0] or now[1])


def test_a_withdrawn_field() -> None:
    """`user_id_update` had pairs of previous and current."""
    change = {"user_id": {"previous": "US.1", "current": "US.2"}, "wa_id": "1650", "timestamp": "1"}
    (event,) = parsed("user_id_update", user_id_update=[change])
    assert (event.subject, event.userid, event.previoususerid, event.waid) == ("US.2", "US.2", "US.1", "1650")


def test_groups() -> None:
    """One key for everybody in the group; the subject is the participant."""
    ann = message(**{"from": "1650", "from_user_id": "US.1"}, group_id="g@g.us")
    assert (ann.groupid, ann.partitionkey, ann.subject) == ("g@g.us", f"{PHONE}:g@g.us", "US.1")
    status = {"id": "w", "status": "read", "recipient_id": "g@g.us", "recipient_type": "group"}
    (read,) = parsed("messages", statuses=[{**status, "recipient_participant_id": "1650"}])
    assert (read.groupid, read.partitionkey, read.subject) == ("g@g.us", f"{PHONE}:g@g.us", "1650")
    (joined,) = parsed("group_participants_update", groups=[{"group_id": "g@g.us", "type": "group_participants_add"}])
    assert (joined.groupid, joined.partitionkey, joined.subject) == ("g@g.us", f"{PHONE}:g@g.us", None)


@pytest.mark.parametrize("sender", ["1650", BUSINESS])
@pytest.mark.parametrize("field", ["history", "standby"])
def test_chats_of_others_are_about_the_customer(field: str, sender: str) -> None:
    """Whoever wrote; old messages have a key of their own."""
    line = {"id": "w", "from": sender, "type": "text"}
    value: dict[str, Any] = {"history": [{"threads": [{"id": "1650", "messages": [line]}]}]}
    if field == "standby":
        value = {"standby": {"messages": [{**line, "to": "1650"}]}}
    (event,) = parsed(field, **value)
    assert event.subject == "1650"
    assert event.partitionkey == (f"{PHONE}:history:1650" if field == "history" else f"{PHONE}:1650")
    assert event.direction == ("outbound" if sender == BUSINESS else "inbound")


@pytest.mark.parametrize(
    ("field", "value", "direction", "key"),
    [
        ("messages", {"statuses": [{"id": "w", "status": "sent", "recipient_id": "1650"}]}, "outbound", "1650"),
        ("messages", {"user_actions": [{"action_type": "x", "user_id": "US.1"}]}, "inbound", "US.1"),
        ("smb_message_echoes", {"message_echoes": [{"from": BUSINESS, "to": "1650"}]}, "outbound", "1650"),
        ("user_preferences", {"user_preferences": [{"wa_id": "1650", "value": "stop"}]}, "inbound", "1650"),
        ("calls", {"calls": [{"from": "1650", "direction": "USER_INITIATED"}]}, "inbound", "1650:call"),
        ("calls", {"calls": [{"to": "1650", "direction": "BUSINESS_INITIATED"}]}, "outbound", "1650:call"),
        ("calls", {"calls": [{"from": "1650"}]}, None, "1650:call"),
    ],
)
def test_direction_and_key(field: str, value: dict[str, Any], direction: str | None, key: str) -> None:
    """Who wrote or called; calls are in order among themselves."""
    (event,) = parsed(field, **value)
    assert (event.direction, event.partitionkey) == (direction, f"{PHONE}:{key}")


def test_events_of_an_account_have_no_direction() -> None:
    """Nor a person."""
    (event,) = parsed("account_alerts", alert_type="x")
    assert (event.direction, event.subject, event.userid, event.waid) == (None,) * 4
