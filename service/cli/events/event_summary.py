"""A short summary of an event for a person: what the message says, or which status it is."""

import json
from collections.abc import Mapping
from typing import Any, Final

from service.events import Event

MAX_SUMMARY_CHARACTERS: Final = 40
_ARRAYS: Final = ("messages", "message_echoes", "statuses", "calls")
_MESSAGE_ARRAYS: Final = ("messages", "message_echoes")


def summary(event: Event) -> str:
    """Return one line with at most the first 40 characters of what a message says; "" for what is no message.

    Of a message without a text it is its type in brackets, of a status or a call it is the status. Pure, and raises
    nothing, whatever the data is.
    """
    try:
        name, item = _update(json.loads(event.data))
    except (ValueError, RecursionError):
        return ""
    text = " ".join((_of_message(item) if name in _MESSAGE_ARRAYS else _of_status(item)).split())
    return text if len(text) <= MAX_SUMMARY_CHARACTERS else f"{text[:MAX_SUMMARY_CHARACTERS]}…"


def _update(notification: Any) -> tuple[str, Mapping[str, Any]]:
    """Return the event's update and the name of the array that holds it."""
    value = _object(_object(_first(_object(_first(_object(notification).get("entry"))).get("changes"))).get("value"))
    value = _object(value.get("standby")) or value
    value = _object(_first(_object(_first(value.get("history"))).get("threads"))) or value
    for name in _ARRAYS:
        if item := _object(_first(value.get(name))):
            return name, item
    return "", {}


def _of_status(item: Mapping[str, Any]) -> str:
    status = _text(item.get("status")) or _text(item.get("event"))
    title = _text(_object(_first(item.get("errors"))).get("title"))
    return f"{status}: {title}" if title else status


def _of_message(message: Mapping[str, Any], *, is_edit: bool = False) -> str:
    kind = _text(message.get("type"))
    content = message.get(kind)
    of = _object(content)
    match kind:
        case "reaction":
            found = _text(of.get("emoji")) or "[reaction removed]"
        case "interactive":
            reply_kind = _text(of.get("type"))
            found = _named(_object(of.get(reply_kind)), "title", "body") or (f"[{reply_kind}]" if reply_kind else "")
        case "contacts":
            found = _named(_object(_object(_first(content)).get("name")), "formatted_name")
        case "edit":
            found = "" if is_edit else _of_message(_object(of.get("message")), is_edit=True)
        case _:
            found = _named(of, "body", "caption", "filename", "text", "name", "address")
    return found or (f"[{kind}]" if kind else "")


def _named(holder: Mapping[str, Any], *names: str) -> str:
    """Return the first of these members that is a text with anything in it."""
    return next((text for name in names if (text := _text(holder.get(name)).strip())), "")


def _text(value: Any) -> str:
    return value if isinstance(value, str) else ""


def _object(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, dict) else {}


def _first(value: Any) -> Any:
    return value[0] if isinstance(value, list) and value else None
