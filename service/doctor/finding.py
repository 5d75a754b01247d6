"""The result of one check."""

from enum import StrEnum
from typing import NamedTuple

from service.outcomes import CheckId


class FindingState(StrEnum):
    """Whether the check passed; `unknown` if it can't be made from here."""

    OK = "ok"
    WRONG = "wrong"
    UNKNOWN = "unknown"


class Finding(NamedTuple):
    """What was checked, what was found, and what to do about it (empty if it is ok); never contains a secret."""

    check: CheckId
    state: FindingState
    detail: str
    remedy: str = ""

    @property
    def docs(self) -> str:
        """Return where the documentation describes the check."""
        return f"docs/meta.md#check-{self.check.replace(' ', '-')}"

    @classmethod
    def ok(cls, check: CheckId, detail: str) -> "Finding":
        """Return the finding of a check that passed."""
        return cls(check, FindingState.OK, detail)

    @classmethod
    def wrong(cls, check: CheckId, detail: str, remedy: str) -> "Finding":
        """Return a finding that explains why notifications do not arrive."""
        return cls(check, FindingState.WRONG, detail, remedy)

    @classmethod
    def unknown(cls, check: CheckId, detail: str, remedy: str) -> "Finding":
        """Return the finding of a check that can't be made from here; *remedy* says how it can."""
        return cls(check, FindingState.UNKNOWN, detail, remedy)
