"""The durability check: reject settings of the stream and its server that could lose an event that was answered 200."""

from typing import Final

import urllib3
from nats.js.api import DiscardPolicy, PersistMode, RetentionPolicy, StorageType, StreamConfig, StreamInfo

from service.errors import InboxUnavailable
from service.outcomes import StorageFailure

MIN_REPLICAS_WITHOUT_SYNC: Final = 3  # a majority of them has an event before it is acknowledged
UNLIMITED: Final = (-1, 0, None)


def require_stream(config: StreamConfig, subject: str) -> None:
    """Raise InboxUnavailable if the stream's own settings could lose events."""
    name = config.name
    if not any(each in (">", f"{subject}.>") for each in config.subjects or ()):
        raise InboxUnavailable(
            StorageFailure.CANNOT_OPEN,
            f"the stream {name} does not accept the subject {subject}.>: add it to the stream's subjects",
        )
    if config.storage != StorageType.FILE:
        raise _unsafe(f"the stream {name} is in memory: create one whose storage is file")
    if config.retention != RetentionPolicy.LIMITS:
        raise _unsafe(
            f"the stream {name} drops events without a consumer, or once they are consumed: create one whose "
            "retention is limits"
        )
    if config.discard != DiscardPolicy.NEW:
        raise _unsafe(
            f"the stream {name} evicts the oldest events when it is full: run nats stream edit {name} --discard new"
        )
    if config.max_msgs_per_subject not in UNLIMITED:
        raise _unsafe(
            f"the stream {name} limits the events per subject: run nats stream edit {name} --max-msgs-per-subject=-1"
        )
    if config.no_ack:
        raise _unsafe(f"the stream {name} does not acknowledge events: create one without no_ack")
    if config.persist_mode == PersistMode.ASYNC:
        raise _unsafe(
            f"the stream {name} acknowledges events before it writes them: create one whose persist_mode is default"
        )


def require_disk(info: StreamInfo, server_id: str, monitor: str | None) -> None:
    """Raise InboxUnavailable if a power failure of one machine could lose acknowledged events.

    *server_id* is that of the connected server, *monitor* the address of its monitoring endpoint.
    """
    config = info.config
    if (config.num_replicas or 1) >= MIN_REPLICAS_WITHOUT_SYNC:
        return
    sync = "configure the server to sync each write (jetstream { sync_interval: always })"
    remedy = f"give the stream {MIN_REPLICAS_WITHOUT_SYNC} replicas, or {sync}"
    if monitor is None:
        raise _unsafe(
            f"the stream {config.name} is on one server's disk only: {remedy} and add its monitoring address to "
            "WEBHOOK_INBOX (monitor=http://server:8222)"
        )
    try:
        varz = urllib3.request("GET", f"{monitor}/varz", timeout=1.0, retries=False).json()
        jetstream = varz["jetstream"]["config"]
    except (urllib3.exceptions.HTTPError, ValueError, KeyError) as ex:
        raise InboxUnavailable(
            StorageFailure.UNSAFE,
            f"the server's settings can't be read at {monitor}/varz: is the monitor parameter in WEBHOOK_INBOX right?",
        ) from ex
    leader = info.cluster.leader if info.cluster else None
    if varz.get("server_name") != leader if leader else varz.get("server_id") != server_id:
        raise InboxUnavailable(
            StorageFailure.UNSAFE,
            f"{monitor} is the monitor of another server: set monitor to the address of the server that has the stream",
        )
    if not jetstream.get("sync_always"):
        raise _unsafe(f"the server syncs only every {jetstream.get('sync_interval', 0) // 10**9} s: {remedy}")


def _unsafe(problem: str) -> InboxUnavailable:
    return InboxUnavailable(
        StorageFailure.UNSAFE, f"{problem}; or add durability=weak to WEBHOOK_INBOX's parameters to accept that"
    )
