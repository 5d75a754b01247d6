"""The inbox by the URL in force: that of the configuration, or what the file that it names says now."""

from service.config import InboxUrl, inbox_url
from service.storage import engines
from service.storage.protocols import Inbox, Terms
from service.telemetry import logs


class Source:
    """Opens the inbox, and sees that its URL is another one by now: a password was changed, or the server."""

    def __init__(self, url: InboxUrl, terms: Terms) -> None:
        self._url = url
        self._terms = terms
        self._open = engines.load(url).inbox_opener(url, terms)
        self._lasting = logs.LastingTrouble(logs.get("inbox"))

    def __call__(self) -> Inbox:
        """Open the inbox of the URL in force; raises InboxUnavailable."""
        found = self._look()
        if found == self._url:
            return self._open()
        opener = engines.load(found).inbox_opener(found, self._terms)
        inbox = opener()
        self._url, self._open = found, opener  # not before it could be opened: else it would not be tried again
        return inbox

    def moved(self) -> bool:
        """Say whether the URL in force is another one than that of the inbox that was opened."""
        return self._look() != self._url

    def _look(self) -> InboxUrl:
        try:
            found, why = _read(self._url), None
        except (OSError, ValueError) as ex:
            found, why = self._url, ex.strerror if isinstance(ex, OSError) else str(ex)
        if found.engine != self._url.engine:
            found, why = self._url, f"another engine ({found.engine}) wants a restart"
        if why:
            self._lasting.tell("inbox file not usable", detail=why, action="keeping the last good value")
        else:
            self._lasting.over()
        return found


def in_force(url: InboxUrl) -> InboxUrl:
    """Give what the file of *url* says now; *url* where it has none, or that says nothing of use."""
    try:
        found = _read(url)
    except (OSError, ValueError):
        return url
    return found if found.engine == url.engine else url


def _read(url: InboxUrl) -> InboxUrl:
    if url.file is None:
        return url
    found = inbox_url(url.file.read_text(encoding="utf-8-sig").strip())._replace(file=url.file)
    if found != url and (problems := engines.problems(found)):
        raise ValueError(" ".join(problems))
    return found
