"""Taking the value of a change apart into its updates, each in a wrapper of its own."""

from collections.abc import Iterator, Mapping, Sequence
from itertools import chain
from typing import Any, Final, NamedTuple, TypeAlias

import msgspec

from service.events import document
from service.events.document import NotADocument

Tree: TypeAlias = Mapping[str, "Tree"]

_ITEMS: Final[Tree] = {}
_ARRAYS: Final[Tree] = {
    "messages": _ITEMS,
    "statuses": _ITEMS,
    "message_echoes": _ITEMS,
    "calls": _ITEMS,
    "user_actions": _ITEMS,
    "groups": _ITEMS,
    "user_preferences": _ITEMS,
    "state_sync": _ITEMS,
    "automatic_events": _ITEMS,
    "user_id_update": _ITEMS,
}
# The arrays whose items are updates. Where a name has names below it, the updates are down there.
UPDATES: Final[Tree] = {**_ARRAYS, "standby": _ARRAYS, "history": {"threads": {"messages": _ITEMS}}}
ERRORS: Final = "errors"
CONTACTS: Final = "contacts"
MAX_CONTACTS: Final = 100_000  # contacts of all updates of an object together
# Where an update names people: phone numbers (`wa_id`) and business-scoped user ids.
_CONTACT: Final = frozenset({"wa_id", "user_id"})
_PARTIES: Final = _CONTACT | {
    "from",
    "to",
    "recipient_id",
    "recipient_participant_id",
    "from_user_id",
    "to_user_id",
    "recipient_user_id",
    "recipient_participant_user_id",
}


class Part(NamedTuple):
    """One update: the names on the way to it, what it says, and the value that holds it alone.

    In the value, the update itself is as it was written; what surrounds it says the same.
    """

    path: tuple[str, ...]
    item: Any
    value: Any


def only(value: Mapping[str, Any]) -> tuple[str, Any] | None:
    """Find the one update of an object that plainly holds no other, and the array's name; else None."""
    names = UPDATES.keys() & value.keys()
    if len(names) != 1 or value.get(ERRORS):
        return None
    (name,) = names
    items = value[name]
    if UPDATES[name] or not isinstance(items, list) or len(items) != 1:
        return None
    return name, items[0]


def split(value: Mapping[str, Any], raw: msgspec.Raw, tree: Tree = UPDATES) -> list[Part]:
    """Find the updates of an object, in order; empty where it has none, and is one update itself.

    What the object holds besides its updates stays with each, but for contacts: those go with the updates that
    name them, and one that nobody names goes with the first. `errors` beside updates is one more update.
    """
    holders = [name for name in value if name in tree and value[name] and isinstance(value[name], list | dict)]
    if not holders:
        return []
    raws = document.members(raw)
    if value.get(ERRORS):
        holders = [name for name in value if name in holders or name == ERRORS]
    found = [part for name in holders for part in _below(name, value[name], raws[name], tree)]
    taken = {part.path[0] for part in found}
    if taken <= {ERRORS}:
        return []
    # What an update stands in: the object without other updates. A copy keeps the order of the keys.
    frames = {name: {key: held for key, held in value.items() if key == name or key not in taken} for name in taken}
    contacts = value.get(CONTACTS)
    if len(found) == 1 or not isinstance(contacts, list) or CONTACTS in taken:
        return [_framed(part, frames[part.path[0]]) for part in found]
    named = _named(contacts, found)
    return [_framed(part, frames[part.path[0]], those) for part, those in zip(found, named, strict=True)]


def _framed(part: Part, frame: dict[str, Any], contacts: list[Any] | None = None) -> Part:
    """Give *part* with the object that holds it alone, with its *contacts* where they were told apart."""
    name = part.path[0]
    whole = frame.copy()
    whole[name] = part.value
    if contacts:
        whole[CONTACTS] = contacts
    elif contacts is not None:
        del whole[CONTACTS]
    # Errors say something only together with what they stand beside.
    item = {**whole, ERRORS: part.item} if name == ERRORS else part.item
    return Part(part.path, item, whole)


def _below(name: str, value: Any, raw: msgspec.Raw, tree: Tree) -> Iterator[Part]:
    if name == ERRORS:
        yield Part((name,), value, raw)
    elif isinstance(value, dict):
        for part in split(value, raw, tree[name]):
            yield Part((name, *part.path), part.item, part.value)
    else:
        for item, raw_item in zip(value, document.items(raw), strict=True):
            parts = split(item, raw_item, tree[name]) if tree[name] and isinstance(item, dict) else ()
            for part in parts:
                yield Part((name, *part.path), part.item, [part.value])
            if not parts:
                yield Part((name,), item, [raw_item])


def _named(contacts: Sequence[Any], parts: Sequence[Part]) -> list[list[Any]]:
    """Give, for each part, the contacts that it names; one that nobody names goes with the first.

    Where they stand side by side, as Meta writes them, each goes with its own. Raises NotADocument where many name
    many: such a thing is kept whole.
    """
    if len(contacts) == len(parts) and all(map(_is_named, contacts, parts)):
        return [[contact] for contact in contacts]
    left = MAX_CONTACTS
    holders: dict[str, list[int]] = {}
    for index, contact in enumerate(contacts):
        for party in _parties(contact, _CONTACT):
            holders.setdefault(party, []).append(index)
    by_part: list[list[int]] = []
    for part in parts:
        by_part.append(sorted({index for party in _parties(part.item, _PARTIES) for index in holders.get(party, ())}))
        left -= len(by_part[-1])
        if left < 0:
            raise NotADocument
    named = set(chain.from_iterable(by_part))
    by_part[0] = sorted({*by_part[0], *(index for index in range(len(contacts)) if index not in named)})
    return [[contacts[index] for index in indexes] for indexes in by_part]


def _is_named(contact: Any, part: Part) -> bool:
    return not set(_parties(contact, _CONTACT)).isdisjoint(_parties(part.item, _PARTIES))


def _parties(item: object, names: frozenset[str]) -> list[str]:
    if not isinstance(item, dict):
        return []
    return [party for name in item.keys() & names if (party := document.text(item[name]))]
