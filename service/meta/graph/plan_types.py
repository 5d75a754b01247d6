"""What is wanted of Meta, what may be taken from others, and the steps that lead there."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final, NamedTuple

NOTHING: Final = "nothing"
NO_OVERRIDE: Final = "no override"
REPLACE: Final = "--replace"
DROP: Final = "--drop-overrides"


class Wanted(NamedTuple):
    """What is to be registered.

    Accounts and numbers in *overridden* get an override to the *callback_url*; where there are any, the app's own
    subscription is left as it is.
    """

    callback_url: str
    verify_token: str
    fields: frozenset[str]
    overridden: frozenset[str] = frozenset()

    def __repr__(self) -> str:
        return f"Wanted(callback_url={self.callback_url!r})"


class Allowed(NamedTuple):
    """What may be taken from others: a callback URL that is not ours, and overrides."""

    replace: bool = False
    drop_overrides: bool = False
    again: bool = False  # subscribe also where nothing changes: with another verify token, say


@dataclass(frozen=True, slots=True)
class PlanStep:
    """One change: of what, what is there now, what will be, and the request that does it.

    *trims*: it only takes away fields that the step before it, which does not name them, may have left.
    """

    what: str
    now: str
    then: str
    method: str
    path: str
    parameters: Mapping[str, str] = field(default_factory=dict, repr=False)  # a verify token is in it
    as_app: bool = False
    trims: bool = False


class Plan(NamedTuple):
    """Steps in order; none is to be taken while there are *refusals*, sentences with the way out.

    *notes* tell what stays as it is, and may not be meant.
    """

    steps: tuple[PlanStep, ...]
    refusals: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
