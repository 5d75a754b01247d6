"""Deduplicate events by id within one put, for engines that recognize stored ids themselves."""

from collections.abc import Sequence

from service.events import Event
from service.storage.protocols import Outcome


def distinct(events: Sequence[Event]) -> list[Event]:
    """Return the first event of each id, in order."""
    first_by_id: dict[str, Event] = {}
    for event in events:
        first_by_id.setdefault(event.id, event)
    return list(first_by_id.values())


def outcomes(events: Sequence[Event], stored_ids: set[str]) -> list[Outcome]:
    """Return the outcome of each event; *stored_ids* are the ids that were stored before."""
    known = set(stored_ids)
    results = []
    for event in events:
        results.append(Outcome.DUPLICATE if event.id in known else Outcome.NEW)
        known.add(event.id)
    return results
