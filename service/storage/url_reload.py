"""The inbox by the URL that is configured now: that of the environment, or what the file that it names says."""

from collections.abc import Sequence

from service.config import InboxUrl, inbox_url
from service.reloading import Reloading, Report
from service.storage import engines
from service.storage.protocols import Inbox, Terms
from service.telemetry import logs


class InboxSource:
    """Opens the inbox, and tells whether its URL is another one by now: a password was changed, or the server."""

    def __init__(self, url: InboxUrl, terms: Terms) -> None:
        self._opened = url
        self._terms = terms
        self._open = engines.load(url).inbox_opener(url, terms)
        self._url = Reloading(_read_file, url)
        self._report = Report(logs.get("inbox"), "inbox URL")

    def __call__(self) -> Inbox:
        """Open the inbox of the URL that is configured now; raises InboxUnavailable."""
        url = self._look()
        if url == self._opened:
            return self._open()
        opener = engines.load(url).inbox_opener(url, self._terms)
        inbox = opener()
        self._opened, self._open = url, opener  # not before it could be opened: else it would not be tried again
        return inbox

    @property
    def opened(self) -> InboxUrl:
        """Return the URL of the inbox that was opened last."""
        return self._opened

    def moved(self) -> bool:
        """Return whether the URL is another one than that of the inbox that was opened."""
        return self._look() != self._opened

    def _look(self) -> InboxUrl:
        self._url.look()
        self._report.update(self._url.problems, action="keeping the last good value")
        return self._url.current


def current(url: InboxUrl) -> InboxUrl:
    """Return what the file of *url* says now; *url* if it has none, or that can't be used."""
    return _read_file(url)[0]


def _read_file(before: InboxUrl) -> tuple[InboxUrl, Sequence[str]]:
    if before.file is None:
        return before, ()
    try:
        url = inbox_url(before.file.read_text(encoding="utf-8-sig").strip())._replace(file=before.file)
    except (OSError, ValueError) as ex:
        return before, [f"{before.file}: {ex.strerror if isinstance(ex, OSError) else ex}"]
    if url != before and (problems := engines.problems(url)):
        return before, problems
    if url.engine != before.engine:
        return before, [f"{before.file}: another engine ({url.engine}) wants a restart"]
    return url, ()
