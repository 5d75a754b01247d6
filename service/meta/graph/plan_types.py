"""The wanted registration, what may be replaced for it, and the steps to it."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final, NamedTuple

NOTHING: Final = "nothing"
NO_OVERRIDE: Final = "no override"
REPLACE: Final = "--replace"
DROP: Final = "--drop-overrides"


class Wanted(NamedTuple):
    """The registration to be made.

    Accounts and numbers in *overridden* get an override to the *callback_url*; if there are any, the app's own
    subscription is not changed.
    """

    callback_url: str
    verify_token: str
    fields: frozenset[str]
    overridden: frozenset[str] = frozenset()

    def __repr__(self) -> str:
        return f"Wanted(callback_url={self.callback_url!r})"


class Allowed(NamedTuple):
    """What may be changed: another callback URL, overrides to other URLs, and whether to register again."""

    replace: bool = False
    drop_overrides: bool = False
    again: bool = False  # register even if nothing changes, with another verify token for example


@dataclass(frozen=True, slots=True)
class PlanStep:
    """One change: its subject, the state now, the state then, and the request that makes it.

    *trims*: it only removes fields that an earlier step, which does not name them, may have left.
    """

    what: str
    now: str
    then: str
    method: str
    path: str
    parameters: Mapping[str, str] = field(default_factory=dict, repr=False)  # may contain a verify token
    as_app: bool = False
    trims: bool = False


class Plan(NamedTuple):
    """Steps in order; no step may be taken if there are *refusals*: sentences that say why, and what to do.

    *notes* are sentences about what is not changed, though that may not be intended.
    """

    steps: tuple[PlanStep, ...]
    refusals: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
