"""The description of an engine: its name and capabilities. Each engine's package has one `Engine`."""

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
    """The relay's deliveries, opened: *work* for the relay, *records* for commands."""

    work: DeliveryState
    records: DeliveryAdmin
    close: Callable[[], None]
    url: Callable[[], InboxUrl]  # of the database that holds both the deliveries and the log now


@dataclass(frozen=True, slots=True, kw_only=True)
class DeliveryStorage:
    """Stores the relay's deliveries beside the inbox; each function raises InboxUnavailable."""

    open: Callable[[InboxUrl], DeliveryStore]
    """Open the deliveries, and create their storage if there is none."""
    exists: Callable[[InboxUrl], bool]
    """Return whether a relay has ever created the storage."""
    location: Callable[[InboxUrl], str]
    """Return a name of the storage for messages, which fits after "there is no"."""
    low_watermark: Callable[[InboxUrl, int, DeliveryPolicy], int | None]
    """Return the oldest position that a relay needs at a time in milliseconds since the epoch; None if none."""
    heartbeat: Callable[[InboxUrl], int | None]
    """Return the time of a relay's last heartbeat, in milliseconds since the epoch; None if there was none."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Engine:
    """An engine; a capability that it does not have is None."""

    name: str
    problems: Callable[[InboxUrl], list[str]]
    """Return the problems of a URL, each a predicate whose subject is the setting's name; does not connect."""
    inbox_opener: Callable[[InboxUrl, Terms], Callable[[], Inbox]]
    """Return the function that opens the inbox; the writer's thread calls it, again after each failure."""
    open_erasure: Callable[[InboxUrl], Erasure]
    """Open the erasure of one person's events; raises InboxUnavailable, or ConfigurationError with an alternative."""
    open_log: Callable[[InboxUrl], Log] | None = None
    """Open the log for another process; raises InboxUnavailable."""
    open_stream: Callable[[InboxUrl], Stream] | None = None
    """Open the stream to show its events, which the user's consumers read; raises InboxUnavailable."""
    deliveries: DeliveryStorage | None = None
    no_log: str = ""
    """Why there is no log, and so no relay: a sentence."""
    notes: Callable[[InboxUrl], list[str]] = _nothing
    """Return why the inbox is not ready now, if this process can see it: whole sentences."""
    has_server: bool = True
    """Whether several instances write to one server, so that any of them may have received a notification."""
    has_several_writers: bool = True
    weak_means: str = (
        "an event that was answered 200 can be lost if the server fails: because of ?durability=weak in WEBHOOK_INBOX, "
        "the server's settings are not checked"
    )
    """The risk of `?durability=weak`."""
