"""Values that are reloaded while the process runs: the last good value stays, and a problem is logged once."""

from collections.abc import Callable, Sequence
from typing import Any, Generic, TypeVar

from service.telemetry import logs

T = TypeVar("T")


class Reloading(Generic[T]):
    """The last good value of a file or directory that may change, vanish or become invalid at any time.

    The content is read and compared each time, so that no change is missed because of a file's time or a watcher.
    """

    def __init__(self, read: Callable[[T], tuple[T, Sequence[str]]], initial: T) -> None:
        """*read* gets the current value and returns the next one, with a sentence per problem.

        For a part that it can't read, it returns that part of the current value.
        """
        self._read = read
        self.current = initial
        self.problems: tuple[str, ...] = ()

    def look(self) -> bool:
        """Read the value again; return whether it changed."""
        before = self.current
        self.current, problems = self._read(before)
        self.problems = tuple(problems)
        return self.current != before


class Report:
    """Logs read failures: when they start or change, every ten minutes while they last, and when they are over."""

    def __init__(self, log: Any, name: str) -> None:
        """*log* is a logger; *name* names the value, such as `credentials`."""
        self._log = log
        self._name = name
        self._problem_log = logs.ProblemLog(log)

    def update(self, problems: Sequence[str], *, level: str = "error", **details: object) -> None:
        """Log *problems*, or that they are over if it is empty."""
        if problems:
            self._problem_log.report(f"{self._name} not readable", level=level, problems=list(problems), **details)
        elif self._problem_log.resolve():
            self._log.info(f"{self._name} readable again")
