"""What one look found."""

from enum import StrEnum
from typing import NamedTuple

from service.outcomes import CheckId


class FindingState(StrEnum):
    """Whether it is as it should be; `unknown` where that can't be seen from here."""

    OK = "ok"
    WRONG = "wrong"
    UNKNOWN = "unknown"


class Finding(NamedTuple):
    """What was looked at, how it is, and what to do about it (empty where it is ok); never a secret."""

    check: CheckId
    state: FindingState
    detail: str
    remedy: str = ""

    @property
    def docs(self) -> str:
        """Return where the documentation says more about the check."""
        return f"docs/meta.md#check-{self.check.replace(' ', '-')}"

    @classmethod
    def ok(cls, check: CheckId, detail: str) -> "Finding":
        """Make one of what is as it should be."""
        return cls(check, FindingState.OK, detail)

    @classmethod
    def wrong(cls, check: CheckId, detail: str, remedy: str) -> "Finding":
        """Make one of what keeps notifications away."""
        return cls(check, FindingState.WRONG, detail, remedy)

    @classmethod
    def unknown(cls, check: CheckId, detail: str, remedy: str) -> "Finding":
        """Make one of what can't be seen from here; the remedy says how it can."""
        return cls(check, FindingState.UNKNOWN, detail, remedy)
