"""Messenger and Instagram: the items of `entry[].messaging` and `entry[].standby`.

Source: Meta, "Messenger Platform > Webhooks" and "Instagram Platform > Webhooks". An item names what happened by one of
its members: `message`, `postback`, `read` and so on.
"""

from collections.abc import Mapping
from typing import Any, Final

from service.events.document import text

OBJECTS: Final = frozenset(("page", "instagram"))
ARRAYS: Final = ("messaging", "standby")
STANDBY: Final = "standby"
ECHO: Final = "echo"  # a message that the page itself sent
KINDS: Final = (
    "message",
    "message_edit",
    "postback",
    "reaction",
    "read",
    "delivery",
    "referral",
    "optin",
    "account_linking",
    "pass_thread_control",
    "take_thread_control",
    "request_thread_control",
    "app_roles",
    "policy_enforcement",
)
OTHER_KIND: Final = "other"


def kind_of(item: Mapping[str, Any]) -> str:
    """Return what happened: one of `KINDS`, `ECHO` or `OTHER_KIND`."""
    kind = next((kind for kind in KINDS if kind in item), OTHER_KIND)
    return ECHO if kind == "message" and _member(item, kind).get("is_echo") else kind


def person_of(item: Mapping[str, Any]) -> str:
    """Return the id of the person whom the page or account talks to; empty if the item names none."""
    return text(_member(item, "recipient" if kind_of(item) == ECHO else "sender").get("id"))


def key_of(item: Mapping[str, Any]) -> str:
    """Return what identifies an item beside its digest: kind, person, and message id, watermark or time."""
    kind = kind_of(item)
    member = _member(item, "message" if kind == ECHO else kind)
    when = text(member.get("mid")) or text(member.get("watermark")) or text(item.get("timestamp"))
    return ":".join(filter(None, (kind, person_of(item), when)))


def type_of(name: str, array: str, item: Mapping[str, Any]) -> str:
    """Return the type of an item in *array* of a notification's object *name*."""
    return type_name(name, array, kind_of(item))


def type_name(name: str, array: str, kind: str) -> str:
    """Return a type; `standby` marks conversations that another application handles."""
    return f"com.meta.{name}.{STANDBY}.{kind}" if array == STANDBY else f"com.meta.{name}.{kind}"


def _member(item: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    member = item.get(name)
    return member if isinstance(member, dict) else {}
