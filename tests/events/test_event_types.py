"""Event types: the word that says what happened is in the type, and a filter can select by it."""

import json
from typing import Any

import pytest

from service.events import Event, matches, parse

METADATA = {"display_phone_number": "15550783881", "phone_number_id": "106"}


def event_of(value: dict[str, Any], field: str = "messages") -> Event:
    change = {"field": field, "value": {"messaging_product": "whatsapp", "metadata": METADATA, **value}}
    body = {"object": "whatsapp_business_account", "entry": [{"id": "102", "changes": [change]}]}
    (event,) = parse(json.dumps(body).encode(), received_at=0, nonce="")
    return event


def message(kind: str, **members: Any) -> dict[str, Any]:
    return {"messages": [{"from": "1", "id": "w", "type": kind, **members}]}


@pytest.mark.parametrize(
    ("field", "value", "event_type"),
    [
        ("messages", message("interactive", interactive={"type": "nfm_reply"}), "message.interactive.nfm_reply"),
        (
            "messages",
            message("interactive", interactive={"type": "call_permission_reply"}),
            "message.interactive.call_permission_reply",
        ),
        ("messages", message("interactive", interactive={"type": "hologram"}), "message.interactive.other"),
        ("messages", message("interactive", interactive={"type": 7}), "message.interactive"),
        ("messages", message("interactive", interactive="x"), "message.interactive"),
        ("messages", message("interactive"), "message.interactive"),
        ("messages", message("system", system={"type": "user_changed_user_id"}), "message.system.user_changed_user_id"),
        (
            "messages",
            message("system", system={"type": "CUSTOMER_CHANGED_NUMBER"}),
            "message.system.customer_changed_number",
        ),
        ("messages", message("text", text={"type": "bold"}), "message.text"),
        ("messages", {"user_actions": [{"action_type": "landing_page_view"}]}, "user_action.landing_page_view"),
        ("messages", {"user_actions": [{"action_type": "a b"}]}, "user_action.other"),
        ("messages", {"user_actions": [{}]}, "user_action.unknown"),
        ("messages", {"errors": [{"code": 1}]}, "messages.errors"),
        ("calls", {"errors": [{"code": 1}]}, "calls.errors"),
        ("messages", {"errors": [{"code": 1}], "conversation_context": {}}, "messages"),
        ("messages", {}, "messages"),
        ("user_preferences", {"user_preferences": [{"wa_id": "1", "value": "stop"}]}, "user_preferences.stop"),
        ("user_preferences", {"user_preferences": [{"wa_id": "1", "value": "RESUME"}]}, "user_preferences.resume"),
        ("user_preferences", {"user_preferences": [{"wa_id": "1", "value": "maybe"}]}, "user_preferences.other"),
        ("user_preferences", {"user_preferences": [{"wa_id": "1"}]}, "user_preferences"),
        ("messaging_handovers", {"type": "control_passed"}, "messaging_handovers.control_passed"),
        ("messaging_handovers", {"control_passed": {"metadata": "x"}}, "messaging_handovers.control_passed"),
        ("messaging_handovers", {"type": "control_lost"}, "messaging_handovers.other"),
        ("group_lifecycle_update", {"groups": [{"type": "group_create"}]}, "group_lifecycle_update.group_create"),
        ("group_status_update", {"groups": [{"type": "group_suspend"}]}, "group_status_update.group_suspend"),
        ("group_status_update", {"groups": [{"type": "group_create"}]}, "group_status_update.other"),
        (
            "smb_app_state_sync",
            {"state_sync": [{"type": "contact", "action": "add"}]},
            "smb_app_state_sync.contact.add",
        ),
        ("smb_app_state_sync", {"state_sync": [{"type": "contact", "action": "rename"}]}, "smb_app_state_sync.other"),
        ("smb_app_state_sync", {"state_sync": [{"action": "add"}]}, "smb_app_state_sync.other"),
        ("account_update", {"event": "PARTNER_ADDED"}, "account_update.partner_added"),
        ("history", {"history": [{"errors": [{"code": 2593109}]}]}, "history"),
    ],
)
def test_the_acting_word_is_in_the_type(field: str, value: dict[str, Any], event_type: str) -> None:
    """A word that no table has is `other`; without a word the type ends with the field or kind."""
    assert event_of(value, field).type == f"com.whatsapp.{event_type}"


@pytest.mark.parametrize(
    ("pattern", "event_type", "expected"),
    [
        ("com.whatsapp.message.interactive", "com.whatsapp.message.interactive.nfm_reply", True),
        ("com.whatsapp.message.interactive", "com.whatsapp.message.interactive", True),
        ("com.whatsapp.message", "com.whatsapp.message.interactive.nfm_reply", True),
        ("com.whatsapp.message", "com.whatsapp.messages.errors", False),
        ("com.whatsapp.message.*", "com.whatsapp.message.interactive.nfm_reply", True),
        ("com.whatsapp.message.?ext", "com.whatsapp.message.text", True),
        ("com.whatsapp.message.tex", "com.whatsapp.message.text", False),
        ("com.whatsapp.message.text.", "com.whatsapp.message.text", False),
        ("*", "com.meta.page.message", True),
        ("", "com.meta.page.message", False),
    ],
)
def test_a_pattern_without_a_wildcard_matches_the_types_below_it(pattern: str, event_type: str, expected: bool) -> None:  # noqa: FBT001
    """So a filter that names a parent goes on matching if types are added below it."""
    assert matches(pattern, event_type) is expected


def test_a_partners_client_is_the_source() -> None:
    """The entry of a PARTNER event is the business portfolio; the id keeps it, as before."""
    value = {"event": "PARTNER_ADDED", "waba_info": {"waba_id": "777", "owner_business_id": "888"}}
    event = event_of(value, "account_update")
    assert (event.source, event.partitionkey, event.businessid) == ("/777", "/777", "102")
    assert event.id.startswith("106:account_update:102:")
    without = event_of({"event": "PARTNER_ADDED", "waba_info": {}}, "account_update")
    assert (without.source, without.businessid) == ("/102/106", None)
    other = event_of({"event": "ACCOUNT_DELETED", "waba_info": {"waba_id": "777"}}, "account_update")
    assert (other.source, other.businessid) == ("/102/106", None)
