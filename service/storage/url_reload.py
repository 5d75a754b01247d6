"""Open the inbox at the currently configured URL, which is in the environment, or in a file that may change."""

from collections.abc import Sequence

from service.config import InboxUrl, inbox_url
from service.reloading import Reloading, Report
from service.storage import engines
from service.storage.protocols import Inbox, Terms
from service.telemetry import logs


class InboxSource:
    """Opens the inbox, and reports whether its URL has changed since, for instance its password or server."""

    def __init__(self, url: InboxUrl, terms: Terms) -> None:
        self._opened = url
        self._terms = terms
        self._open = engines.load(url).inbox_opener(url, terms)
        self._url = Reloading(_read_file, url)
        self._report = Report(logs.get("inbox"), "inbox URL")

    def __call__(self) -> Inbox:
        """Open the inbox at the current URL; raises InboxUnavailable."""
        url = self._reload()
        if url == self._opened:
            return self._open()
        opener = engines.load(url).inbox_opener(url, self._terms)
        inbox = opener()
        self._opened, self._open = url, opener  # only after it was opened, so that a failure is tried again
        return inbox

    @property
    def opened(self) -> InboxUrl:
        """Return the URL of the inbox that is open, or was opened last."""
        return self._opened

    def moved(self) -> bool:
        """Return whether the current URL differs from that of the opened inbox."""
        return self._reload() != self._opened

    def _reload(self) -> InboxUrl:
        self._url.look()
        self._report.update(self._url.problems, action="keeping the last good value")
        return self._url.current


def current(url: InboxUrl) -> InboxUrl:
    """Return the URL that the file of *url* has now; *url* itself if it has no file or the file is invalid."""
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
        return before, [f"{before.file}: a change of the engine, to {url.engine}, requires a restart"]
    return url, ()
