"""Which events a destination or a command selects."""

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
        account, _, number = event.source[1:].partition("/")
        return (
            (not self.types or any(matches(pattern, event.type) for pattern in self.types))
            and not any(matches(pattern, event.type) for pattern in self.not_types)
            and (not self.fields or event.field in self.fields)
            and (not self.phone_number_ids or (number or account) in self.phone_number_ids)
            and (not self.accounts or account in self.accounts)
            and (self.groups is None or (event.groupid is not None) == (self.groups == "only"))
            and (self.direction is None or event.direction == self.direction)
        )
