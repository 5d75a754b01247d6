"""Which events a destination or a command selects."""

from collections.abc import Iterator
from typing import Literal

from pydantic import BaseModel, ConfigDict
from pydantic.alias_generators import to_camel

from service.events.event import Event
from service.events.event_types import matches


class EventFilter(BaseModel):
    """Selects the events that match every option that is set; an empty filter selects all."""

    model_config = ConfigDict(frozen=True, extra="forbid", alias_generator=to_camel, strict=True)

    types: list[str] = []
    """Patterns of types, of which an event must match one; see `matches`."""
    not_types: list[str] = []
    """Patterns of types, of which an event must match none."""
    fields: list[str] = []
    """Meta's webhook fields."""
    phone_number_ids: list[str] = []
    """Business phone numbers; an account id selects events of the account that belong to no number."""
    accounts: list[str] = []
    groups: Literal["only", "none"] | None = None
    """Only events of groups, or none of them."""
    direction: Literal["inbound", "outbound"] | None = None
    """Who wrote or called: the other party, or the business."""

    def selects(self, event: Event) -> bool:
        """Return whether *event* matches."""
        return self.mismatch(event) is None

    def mismatch(self, event: Event) -> str | None:
        """Return the first option that *event* does not match; None if it matches all."""
        return next(self._mismatches(event), None)

    def _mismatches(self, event: Event) -> Iterator[str]:
        account, _, number = event.source[1:].partition("/")
        if self.types and not any(matches(pattern, event.type) for pattern in self.types):
            yield "types"
        if any(matches(pattern, event.type) for pattern in self.not_types):
            yield "notTypes"
        if self.fields and event.field not in self.fields:
            yield "fields"
        if self.phone_number_ids and (number or account) not in self.phone_number_ids:
            yield "phoneNumberIds"
        if self.accounts and account not in self.accounts:
            yield "accounts"
        if self.groups is not None and (event.groupid is not None) != (self.groups == "only"):
            yield "groups"
        if self.direction is not None and event.direction != self.direction:
            yield "direction"
