"""What an engine is: its name, and what it can do. Each engine's package describes itself with one `Engine`."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

from service.config import InboxUrl
from service.storage.deliveries import DeliveryAdmin, DeliveryState
from service.storage.delivery_policy import DeliveryPolicy
from service.storage.protocols import Erasure, Inbox, Log, Stream, Terms


def _nothing(_url: InboxUrl) -> list[str]:
    return []


class DeliveryStore(NamedTuple):
    """The relay's deliveries, opened."""

    work: DeliveryState
    records: DeliveryAdmin
    close: Callable[[], None]
    url: Callable[[], InboxUrl]  # of the database that it is in now, where its log is too


@dataclass(frozen=True, slots=True, kw_only=True)
class DeliveryStorage:
    """How an engine stores the relay's deliveries, beside the inbox; all of it raises InboxUnavailable."""

    open: Callable[[InboxUrl], DeliveryStore]
    """Open the deliveries, and make them if there are none."""
    exists: Callable[[InboxUrl], bool]
    """Return whether a relay ever made them."""
    location: Callable[[InboxUrl], str]
    """Return where they are, in words."""
    low_watermark: Callable[[InboxUrl, int, DeliveryPolicy], int | None]
    """Return the oldest position that a relay still needs at a time in milliseconds since the epoch; None for none."""
    heartbeat: Callable[[InboxUrl], int | None]
    """Return when a relay last said that it runs, in milliseconds since the epoch; None if none ever did."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Engine:
    """An engine; what it can't do is None."""

    name: str
    problems: Callable[[InboxUrl], list[str]]
    """Return what is wrong with a URL, each the end of a sentence that begins with its setting; connects to nothing."""
    inbox_opener: Callable[[InboxUrl, Terms], Callable[[], Inbox]]
    """Return what opens the inbox: the writer does, in its thread, and again after a failure."""
    open_erasure: Callable[[InboxUrl], Erasure]
    """Open what erases one person's events; raises InboxUnavailable, or ConfigurationError with what to do instead."""
    open_log: Callable[[InboxUrl], Log] | None = None
    """Open the log for another process; raises InboxUnavailable."""
    open_stream: Callable[[InboxUrl], Stream] | None = None
    """Open a stream, which consumers of the user's read, to look at it; raises InboxUnavailable."""
    deliveries: DeliveryStorage | None = None
    no_log: str = ""
    """Why there is no log, and so no relay: a sentence."""
    notes: Callable[[InboxUrl], list[str]] = _nothing
    """Return what keeps the inbox from being ready now, as far as this process sees it: whole sentences."""
    has_server: bool = True
    """Whether several instances write to one server, so that any of them may have taken a notification."""
    has_several_writers: bool = True
    weak_means: str = "a 200 may be lost with the server: WEBHOOK_INBOX says that its settings are not looked at"
    """What `?durability=weak` costs."""
