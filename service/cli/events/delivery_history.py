"""The deliveries of one event, as `events show` prints them."""

import os
from collections.abc import Iterator, Mapping
from typing import Any

from service.cli import delivery_store
from service.cli.load_config import configured
from service.cli.load_destinations import configured_destinations
from service.config import InboxUrl
from service.errors import ConfigurationError
from service.events import Event, rfc3339
from service.relay.destinations import Destination
from service.storage.deliveries import Attempt, DeliveryAdmin, DeliveryHistory


def histories(url: InboxUrl, position: int, event: Event) -> list[dict[str, Any]]:
    """Return each delivery of an event with its attempts, and for each other destination why there is none."""
    with delivery_store.opened_if_any(url) as records:
        if records is None:
            return []
        deliveries = [_document(each) for each in records.history(position)]
        known = {each["destination"] for each in deliveries}
        return deliveries + [each for each in _without(records, position, event) if each["destination"] not in known]


def _document(history: DeliveryHistory) -> dict[str, Any]:
    attempts = [_attempt(each) for each in history.attempts]
    return {"destination": history.destination, "state": history.state, "attempts": attempts}


def _attempt(attempt: Attempt) -> Mapping[str, Any]:
    *_, evidence = attempt
    shown = attempt._asdict() | {"at": rfc3339(attempt.at), "seconds": round(attempt.seconds, 3)}
    del shown["evidence"]
    if evidence is None:
        return shown
    return shown | {name: value for name, value in evidence._asdict().items() if value}


def _without(records: DeliveryAdmin, position: int, event: Event) -> Iterator[dict[str, Any]]:
    destinations = _destinations()
    for status in records.statuses():
        if status.name in destinations:
            state = _reason(destinations[status.name], event, is_read=position <= status.position)
            yield {"destination": status.name, "state": state, "attempts": []}


def _reason(destination: Destination, event: Event, *, is_read: bool) -> str:
    """Return why a destination has no delivery of an event."""
    option = destination.mismatch(event)
    if option == "tests":
        return "not delivered: it is a test event, and the destination does not set `tests: true`"
    if option == "format":
        return "not delivered: an unrecognized body goes to a destination of format meta only if `types` names its type"
    if option:
        return f"not delivered: the destination's option `{option}` excludes it"
    if not is_read:
        return "not read yet by the relay"
    return "no delivery: the destination was added later, its filter has changed, or its attempts are deleted already"


def _destinations() -> Mapping[str, Destination]:
    """Return the destinations of the file; none if there is no readable one, which `check` reports."""
    try:
        return configured_destinations(os.environ) if configured(os.environ).destinations else {}
    except ConfigurationError:
        return {}
