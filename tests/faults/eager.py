"""The control: a server that answers before it commits. It loses events, and the tests must detect that."""

import sys
import threading
import time
from collections.abc import Sequence

import apsw

from service import cli
from service.events import Event
from service.storage.protocols import Inbox, Outcome
from service.storage.url_reload import InboxSource


class Eager:
    """An inbox that reports events as stored immediately, and commits them up to 0.2 s later."""

    def __init__(self, inner: Inbox) -> None:
        self._inner = inner
        self._late: list[Event] = []
        self._lock = threading.Lock()
        self.probe, self.purge, self.size = inner.probe, inner.purge, inner.size
        threading.Thread(target=self._commit, daemon=True).start()

    def put(self, events: Sequence[Event]) -> Sequence[Outcome]:
        """Report the events as stored, although they are not yet."""
        with self._lock:
            self._late += events
        return [Outcome.NEW] * len(events)

    def close(self) -> None:
        """Discard the events that are not committed yet."""

    def _commit(self) -> None:
        while True:
            time.sleep(0.2)
            with self._lock:
                late, self._late = self._late, []
            if late:
                try:
                    self._inner.put(late)
                except apsw.Error:
                    sys.exit(1)


if __name__ == "__main__":
    opened = InboxSource.__call__
    InboxSource.__call__ = lambda self: Eager(opened(self))  # type: ignore[method-assign,assignment,return-value]
    cli.main()
