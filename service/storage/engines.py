"""From the configured URL to the engine: the one place that knows them all.

An engine's client is an optional part of the installation, and is loaded only where the engine is chosen.
"""

from collections.abc import Callable
from importlib import import_module
from typing import Final, Protocol, cast

from service.config import InboxUrl
from service.errors import ConfigurationError
from service.storage.protocols import Erasure, Inbox, Log, Stream, Terms

_MODULES: Final = {
    "sqlite": "service.storage.sqlite",
    "postgresql": "service.storage.postgresql",
    "kafka": "service.storage.kafka",
    "nats": "service.storage.nats",
    "memory": "service.storage.memory",
}
STREAMS: Final = ("kafka", "nats")  # which consumers of the user's read, and no relay


class Engine(Protocol):
    """What the module of an engine gives."""

    def problems(self, url: InboxUrl) -> list[str]:
        """Say what is wrong with *url*, each in a sentence that goes on after `WEBHOOK_INBOX`; connects to nothing."""
        ...

    def opener(self, url: InboxUrl, terms: Terms) -> Callable[[], Inbox]:
        """Make what opens the inbox; opening is left to the writer, in its thread."""
        ...

    def open_log(self, url: InboxUrl) -> Log:
        """Open the log for reading from another process; no engine of `STREAMS` has one.

        Raises InboxUnavailable, or ConfigurationError where nobody else can read it.
        """
        ...

    def open_erasure(self, url: InboxUrl) -> Erasure:
        """Open what erases one person's events, from another process. As `open_log`."""
        ...

    def open_stream(self, url: InboxUrl) -> Stream:
        """Open the stream for looking at it; only engines of `STREAMS` have one. Raises InboxUnavailable."""
        ...


def load(url: InboxUrl) -> Engine:
    """Give the engine of *url*; raises ConfigurationError where its client is not installed."""
    try:
        return cast("Engine", import_module(_MODULES[url.engine]))
    except ImportError as ex:
        extra = f"pip install 'whatsapp-webhook[{url.engine}]'"
        raise ConfigurationError([f"WEBHOOK_INBOX wants {url.engine}, whose client is not installed: {extra}."]) from ex


def problems(url: InboxUrl) -> list[str]:
    """Say what is wrong with *url*, in whole sentences."""
    try:
        return [f"WEBHOOK_INBOX {problem}." for problem in load(url).problems(url)]
    except ConfigurationError as ex:
        return list(ex.problems)
