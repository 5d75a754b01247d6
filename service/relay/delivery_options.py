"""The `delivery` options of a destination: how long and how often an event is attempted, and what happens then."""

import re
from typing import Annotated, Final, Literal

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, model_validator
from pydantic.alias_generators import to_camel

from service.config import duration
from service.storage.delivery_policy import DELIVERY_POLICY, DeliveryPolicy

DEFAULT_SKIP_AFTER: Final = 5
MAX_ATTEMPTS: Final = 10_000
_RATE: Final = re.compile(r"([1-9][0-9]{0,6})/(s|m|h)")
_SECONDS: Final = {"s": 1, "m": 60, "h": 3600}


def _milliseconds(least: str, most: str) -> BeforeValidator:
    """Return a validator that parses a duration into milliseconds."""

    def parse(value: object) -> int:
        problem = f"must be a duration from {least} to {most} with a unit (ms, s, m, h or d), in quotes"
        try:
            seconds = duration(value) if isinstance(value, str) else 0
        except ValueError:
            raise ValueError(problem) from None
        if not duration(least) <= seconds <= duration(most):
            raise ValueError(problem)
        return int(seconds * 1000)

    return BeforeValidator(parse)


def _per_second(value: object) -> object:
    match = _RATE.fullmatch(value) if isinstance(value, str) else None
    if match is None:
        raise ValueError("must be a number of requests and a unit, such as 50/s, 600/m or 1000/h")
    return int(match[1]) / _SECONDS[match[2]]


def _is_permanent(status: int) -> int:
    if not 400 <= status < 500 or status in (410, 429):  # noqa: PLR2004  client errors
        raise ValueError("must be statuses from 400 to 499, without 410 (disables the destination) and 429 (retried)")
    return status


PermanentStatus = Annotated[int, AfterValidator(_is_permanent)]


class _Options(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, alias_generator=to_camel)


class Backoff(_Options):
    """The random delay before a retry: its upper limit is *first* after the first attempt, and doubles up to *max*."""

    first: Annotated[int, _milliseconds("100ms", "1d")] = DELIVERY_POLICY.first_backoff_ms
    max: Annotated[int, _milliseconds("100ms", "1d")] = DELIVERY_POLICY.max_backoff_ms

    @model_validator(mode="after")
    def _is_growing(self) -> "Backoff":
        if self.first > self.max:
            raise ValueError("first must not be longer than max")
        return self


class DeliveryOptions(_Options):
    """The options; durations are in milliseconds once they are parsed, the rate limit in requests per second."""

    max_age: Annotated[int, _milliseconds("1m", "30d")] = DELIVERY_POLICY.max_age_ms
    max_attempts: Annotated[int, Field(ge=1, le=MAX_ATTEMPTS)] | None = None
    backoff: Backoff = Backoff()
    permanent_statuses: tuple[PermanentStatus, ...] = Field(
        default=tuple(sorted(DELIVERY_POLICY.permanent_statuses)), strict=False
    )
    permanent_attempts: Annotated[int, Field(ge=1, le=MAX_ATTEMPTS)] = DELIVERY_POLICY.permanent_attempts
    permanent_after: Annotated[int, _milliseconds("1s", "30d")] = DELIVERY_POLICY.permanent_after_ms
    on_failure: Literal["block", "skip"] = "block"
    skip_after: Annotated[int, Field(ge=1, le=MAX_ATTEMPTS)] | None = None
    rate_limit: Annotated[float, BeforeValidator(_per_second)] | None = None

    @model_validator(mode="after")
    def _is_consistent(self) -> "DeliveryOptions":
        if self.skip_after is not None and self.on_failure != "skip":
            raise ValueError("skipAfter requires `onFailure: skip`")
        return self

    def policy(self) -> DeliveryPolicy:
        """Return the limits of the destination."""
        return DeliveryPolicy(
            max_age_ms=self.max_age,
            max_attempts=self.max_attempts,
            first_backoff_ms=self.backoff.first,
            max_backoff_ms=self.backoff.max,
            permanent_statuses=frozenset(self.permanent_statuses),
            permanent_attempts=self.permanent_attempts,
            permanent_after_ms=self.permanent_after,
            skip_after=(self.skip_after or DEFAULT_SKIP_AFTER) if self.on_failure == "skip" else None,
        )
