"""Values that are read again while the process runs: the last good one stays, and what is wrong is logged once."""

from collections.abc import Callable, Sequence
from typing import Any, Generic, TypeVar

from service.telemetry import logs

T = TypeVar("T")


class Reloading(Generic[T]):
    """The last good value of a file or directory that may change, vanish or break at any time.

    It is read by looking, and compared by content: no clock of a file system and no watcher can hide a change.
    """

    def __init__(self, read: Callable[[T], tuple[T, Sequence[str]]], initial: T) -> None:
        """*read* gets the present value and returns the next one, with what is wrong: a sentence each.

        It returns the present value, or a part of it, for what it can't read.
        """
        self._read = read
        self.current = initial
        self.problems: tuple[str, ...] = ()

    def look(self) -> bool:
        """Read again; return whether the value changed."""
        before = self.current
        self.current, problems = self._read(before)
        self.problems = tuple(problems)
        return self.current != before


class Report:
    """Logs that something can't be read: when that begins or changes, now and then while it lasts, and its end."""

    def __init__(self, log: Any, name: str) -> None:
        """*log* is a logger, *name* what is read: credentials, say."""
        self._log = log
        self._name = name
        self._lasting = logs.LastingTrouble(log)

    def update(self, problems: Sequence[str], *, level: str = "error", **details: object) -> None:
        """Log the *problems*, or that there are none any more."""
        if problems:
            self._lasting.tell(f"{self._name} not readable", level=level, problems=list(problems), **details)
        elif self._lasting.over():
            self._log.info(f"{self._name} readable again")
