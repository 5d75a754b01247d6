"""What the stream, and the server that keeps it, must be, before anybody is told 200."""

from typing import Final

import urllib3
from nats.js.api import DiscardPolicy, PersistMode, RetentionPolicy, StorageType, StreamConfig, StreamInfo

from service.errors import InboxUnavailable
from service.outcomes import StorageFailure

MIN_REPLICAS_WITHOUT_SYNC: Final = 3  # replicas of which a majority has an event before it is acknowledged
LIMITLESS: Final = (-1, 0, None)


def require_stream(config: StreamConfig, subject: str) -> None:
    """Raise InboxUnavailable where the stream's own settings lose events."""
    name = config.name
    if not any(each in (">", f"{subject}.>") for each in config.subjects or ()):
        raise InboxUnavailable(
            StorageFailure.CANNOT_OPEN, f"the stream {name} does not take {subject}.>: add it to its subjects"
        )
    if config.storage != StorageType.FILE:
        raise _unsafe(f"the stream {name} is in memory: make one whose storage is file")
    if config.retention != RetentionPolicy.LIMITS:
        raise _unsafe(f"the stream {name} drops what nobody asked for yet: make one whose retention is limits")
    if config.discard != DiscardPolicy.NEW:
        raise _unsafe(f"the stream {name} evicts the oldest when it is full: nats stream edit {name} --discard new")
    if config.max_msgs_per_subject not in LIMITLESS:
        raise _unsafe(
            f"the stream {name} keeps only some of a subject: nats stream edit {name} --max-msgs-per-subject=-1"
        )
    if config.no_ack:
        raise _unsafe(f"the stream {name} acknowledges nothing: make one without no_ack")
    if config.persist_mode == PersistMode.ASYNC:
        raise _unsafe(f"the stream {name} acknowledges before it writes: make one whose persist_mode is default")


def require_disk(info: StreamInfo, server_id: str, monitor: str | None) -> None:
    """Raise InboxUnavailable where one machine's power cut loses what was acknowledged.

    *server_id* is of the server that we are connected to, *monitor* the address of its monitoring.
    """
    config = info.config
    if (config.num_replicas or 1) >= MIN_REPLICAS_WITHOUT_SYNC:
        return
    sync = "have the server sync each write (jetstream { sync_interval: always })"
    ways = f"give the stream {MIN_REPLICAS_WITHOUT_SYNC} replicas, or {sync}"
    if monitor is None:
        raise _unsafe(f"the stream {config.name} has one server's disk: {ways} and name its monitor=http://server:8222")
    try:
        said = urllib3.request("GET", f"{monitor}/varz", timeout=1.0, retries=False).json()
        found = said["jetstream"]["config"]
    except (urllib3.exceptions.HTTPError, ValueError, KeyError) as ex:
        raise InboxUnavailable(
            StorageFailure.UNSAFE, f"the server's settings can't be read at {monitor}/varz: is it right?"
        ) from ex
    leader = info.cluster.leader if info.cluster else None
    if said.get("server_name") != leader if leader else said.get("server_id") != server_id:
        raise InboxUnavailable(
            StorageFailure.UNSAFE, f"{monitor} is another server's than the one that has the stream: name that"
        )
    if not found.get("sync_always"):
        raise _unsafe(f"the server syncs every {found.get('sync_interval', 0) // 10**9} s only: {ways}")


def _unsafe(what: str) -> InboxUnavailable:
    return InboxUnavailable(StorageFailure.UNSAFE, f"{what}; or say ?durability=weak where that is wanted")
