"""Taking the value of a change apart into its updates, each in a wrapper of its own."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, Final, NamedTuple, TypeAlias

import msgspec

from service.events import document
from service.events.document import Raws

Tree: TypeAlias = Mapping[str, "Tree"]

_ARRAYS: Final[Tree] = dict.fromkeys(
    (
        "messages",
        "statuses",
        "message_echoes",
        "calls",
        "user_actions",
        "groups",
        "user_preferences",
        "state_sync",
        "automatic_events",
        "user_id_update",
    ),
    {},
)
# The arrays whose items are updates. Where a name has names below it, the updates are down there.
UPDATES: Final[Tree] = {**_ARRAYS, "standby": _ARRAYS, "history": {"threads": {"messages": {}}}}
ERRORS: Final = "errors"
# Where an update names people: phone numbers (`wa_id`) and business-scoped user ids.
_PARTIES: Final = (
    "from",
    "to",
    "recipient_id",
    "recipient_participant_id",
    "wa_id",
    "from_user_id",
    "to_user_id",
    "recipient_user_id",
    "recipient_participant_user_id",
    "user_id",
)


class Part(NamedTuple):
    """One update: the names on the way to it, what it says, and the value that holds it alone."""

    path: tuple[str, ...]
    item: Any
    wrapped: Any


def split(values: Mapping[str, Any], raws: Raws, tree: Tree = UPDATES) -> list[Part]:
    """Find the updates of an object; empty where it has none, and is one update itself.

    What the object holds besides its updates stays with each, but for contacts: those go with the updates that
    name them, and one that nobody names goes with the first. `errors` beside updates is one more update.
    """
    found = [part for name, below in tree.items() for part in _below(name, values.get(name), raws, below)]
    if found and isinstance(values.get(ERRORS), list) and values[ERRORS]:
        found.append(Part((ERRORS,), values[ERRORS], raws[ERRORS]))
    if not found:
        return found
    taken = {part.path[0] for part in found}
    shared = {name: raw for name, raw in raws.items() if name not in taken}
    contacts = _Contacts.of(values, shared, found)
    return [
        Part(path, item, _wrapper(raws, path[0], wrapped, shared, contacts.named_by(index) if contacts else None))
        for index, (path, item, wrapped) in enumerate(found)
    ]


def _below(name: str, value: object, raws: Raws, tree: Tree) -> Iterator[Part]:
    if isinstance(value, dict) and tree:
        for part in split(value, document.members(raws[name]), tree):
            yield Part((name, *part.path), part.item, part.wrapped)
    elif isinstance(value, list):
        for item, raw in zip(value, document.items(raws[name]), strict=True):
            parts = split(item, document.members(raw), tree) if tree and isinstance(item, dict) else ()
            for part in parts:
                yield Part((name, *part.path), part.item, [part.wrapped])
            if not parts:
                yield Part((name,), item, [raw])


def _wrapper(raws: Raws, name: str, wrapped: object, shared: Raws, contacts: Sequence[object] | None) -> object:
    whole: dict[str, object] = {}
    for key in raws:
        if key == name:
            whole[key] = wrapped
        elif key == "contacts" and contacts is not None:
            if contacts:
                whole[key] = contacts
        elif key in shared:
            whole[key] = shared[key]
    return whole


class _Contacts:
    """Which contacts of a value go with which of its updates."""

    def __init__(self, raws: Sequence[msgspec.Raw], by_update: Sequence[Sequence[int]]) -> None:
        self._raws = raws
        self._by_update = by_update

    @classmethod
    def of(cls, values: Mapping[str, Any], shared: Raws, parts: Sequence[Part]) -> "_Contacts | None":
        contacts = values.get("contacts")
        if not isinstance(contacts, list) or "contacts" not in shared:
            return None
        holders: dict[str, list[int]] = {}
        for index, contact in enumerate(contacts):
            for party in _parties(contact, ("wa_id", "user_id")):
                holders.setdefault(party, []).append(index)
        by_update = [
            sorted({index for party in _parties(part.item, _PARTIES) for index in holders.get(party, ())})
            for part in parts
        ]
        named = {index for indexes in by_update for index in indexes}
        by_update[0] = sorted({*by_update[0], *(index for index in range(len(contacts)) if index not in named)})
        return cls(document.items(shared["contacts"]), by_update)

    def named_by(self, update: int) -> list[msgspec.Raw]:
        return [self._raws[index] for index in self._by_update[update]]


def _parties(item: object, names: Iterable[str]) -> Iterator[str]:
    if isinstance(item, dict):
        for name in names:
            party = document.text(item.get(name))
            if party:
                yield party
