"""What is put twice in one go, and what was there: for engines that tell by the id."""

from collections.abc import Sequence

from service.events import Event
from service.storage.protocols import Outcome


def distinct(events: Sequence[Event]) -> list[Event]:
    """Give the first event of each id, in order."""
    found: dict[str, Event] = {}
    for event in events:
        found.setdefault(event.id, event)
    return list(found.values())


def outcomes(events: Sequence[Event], there: set[str]) -> list[Outcome]:
    """Say of each event what it was, where the ids *there* had been there before."""
    known = set(there)
    found = []
    for event in events:
        found.append(Outcome.DUPLICATE if event.id in known else Outcome.NEW)
        known.add(event.id)
    return found
