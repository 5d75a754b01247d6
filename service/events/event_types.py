"""Event types: the words that say what happened, and how a filter's pattern matches a type.

Words come from Meta's webhook reference: "messages", "Groups", "user_preferences", "messaging_handovers" and
"smb_app_state_sync". A word that is not in a table becomes `other`, so that types stay a set that filters can list.
"""

import re
from collections.abc import Mapping
from fnmatch import fnmatchcase
from functools import lru_cache
from typing import Any, Final

MAX_TYPE_CHARACTERS: Final = 64
_WORD: Final = re.compile(r"[A-Za-z0-9_-]+")
_WILDCARDS: Final = re.compile(r"[*?\[]")

INTERACTIVE: Final = frozenset("button_reply call_permission_reply list_reply nfm_reply product".split())
SYSTEM: Final = frozenset(
    "customer_changed_number customer_identity_changed user_changed_number user_changed_user_id".split()
)
USER_ACTIONS: Final = frozenset(("landing_page_view", "marketing_messages_link_click"))
# The actions of the fields whose updates name one.
ACTIONS: Final[Mapping[str, frozenset[str]]] = {
    "group_lifecycle_update": frozenset(("group_create", "group_delete")),
    "group_participants_update": frozenset(
        "group_join_request_created group_join_request_revoked group_participants_add group_participants_remove".split()
    ),
    "group_settings_update": frozenset(("group_settings_update",)),
    "group_status_update": frozenset(("group_suspend", "group_suspend_cleared")),
    "messaging_handovers": frozenset(("control_passed", "control_shared", "control_taken")),
    "smb_app_state_sync": frozenset(("contact.add", "contact.remove")),
    "user_preferences": frozenset(("resume", "signup", "stop")),
}
_ACTION_NAMES: Final = {"user_preferences": ("value",), "smb_app_state_sync": ("type", "action")}
OTHER_WORD: Final = "other"
ERRORS_WORD: Final = "errors"


def type_word(value: object) -> str:
    """Return Meta's *value* as a part of a type: in lower case, `other` if it is not a word, empty if it is missing."""
    if not isinstance(value, str) or not value:
        return ""
    return _type_word_of(value) if len(value) <= MAX_TYPE_CHARACTERS else OTHER_WORD


@lru_cache(maxsize=1024)
def _type_word_of(value: str) -> str:
    return value.lower() if _WORD.fullmatch(value) else OTHER_WORD


def known(word: str, words: frozenset[str]) -> str:
    """Return *word* if it is one of *words*: `other` if it is another one, empty if it is empty."""
    return word if word in words else word and OTHER_WORD


def action_of(field: str, item: Mapping[str, Any]) -> str:
    """Return the action that an update of *field* names, as the last part of its type; empty if it names none."""
    words = ACTIONS.get(field)
    if words is None:
        return ""
    if field == "messaging_handovers" and not item.get("type"):  # older payloads name it by the member alone
        return next((word for word in sorted(words) if word in item), "")
    names = _ACTION_NAMES.get(field, ("type",))
    return known(".".join(filter(None, (type_word(item.get(name)) for name in names))), words)


def matches(pattern: str, event_type: str) -> bool:
    """Return whether a filter's *pattern* matches a type.

    `*` matches anything. A pattern without a wildcard matches that type and all types below it, so that
    `com.whatsapp.message.interactive` matches `com.whatsapp.message.interactive.button_reply`.
    """
    if _WILDCARDS.search(pattern):
        return fnmatchcase(event_type, pattern)
    return event_type == pattern or event_type.startswith(pattern + ".")
