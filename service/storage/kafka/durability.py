"""The durability check: reject settings and states of the topic that could lose an event that was answered 200."""

from collections.abc import Mapping
from typing import Any, Final

from confluent_kafka import KafkaException, TopicPartition
from confluent_kafka.admin import AdminClient
from confluent_kafka.admin._config import ConfigResource
from confluent_kafka.admin._listoffsets import OffsetSpec
from confluent_kafka.admin._metadata import TopicMetadata

from service.errors import InboxUnavailable
from service.outcomes import StorageFailure
from service.storage.kafka.errors import map_errors, mapped

MIN_INSYNC_REPLICAS: Final = 2  # replicas that must have an event before it is acknowledged
_NEWEST: Final[OffsetSpec] = OffsetSpec.latest()  # type: ignore[no-untyped-call]
_ALTER: Final = "kafka-configs.sh --alter --topic {topic} --add-config {name}={value}"
# A topic's setting, its required value, and the risk of any other value.
_REQUIRED_SETTINGS: Final[tuple[tuple[str, str, str], ...]] = (
    ("unclean.leader.election.enable", "false", "a replica that lacks events may become the leader"),
    ("cleanup.policy", "delete", "compaction drops all but the last event of a key"),
    ("retention.bytes", "-1", "a burst of events evicts events that were not read yet"),
)


def describe(admin: AdminClient, topic: str, *, timeout: float) -> TopicMetadata:
    """Return the brokers' metadata of the topic; raises InboxUnavailable if it does not exist."""
    with map_errors():
        metadata = admin.list_topics(timeout=timeout).topics.get(topic)
    if metadata is None:
        settings = f"--replication-factor 3 --config min.insync.replicas={MIN_INSYNC_REPLICAS}"
        command = f"kafka-topics.sh --create --topic {topic} {settings}"
        raise InboxUnavailable(StorageFailure.CANNOT_OPEN, f"the topic {topic!r} does not exist: create it ({command})")
    if metadata.error is not None:
        raise mapped(metadata.error)
    return metadata


def require_settings(admin: AdminClient, topic: TopicMetadata, *, timeout: float) -> int:
    """Raise InboxUnavailable if the topic's settings could lose events; return its min.insync.replicas."""
    name = str(topic.topic)
    resource = ConfigResource(ConfigResource.Type.TOPIC, name)
    try:
        with map_errors():
            (future,) = admin.describe_configs([resource], request_timeout=timeout).values()
            entries: Mapping[str, Any] = future.result(timeout=timeout)
    except TimeoutError as ex:
        raise InboxUnavailable(
            StorageFailure.SLOW, "the brokers do not return the topic's settings in time: check their load"
        ) from ex
    values = {key: entry.value for key, entry in entries.items()}
    min_replicas = int(values["min.insync.replicas"])
    if min_replicas < MIN_INSYNC_REPLICAS:
        remedy = _ALTER.format(topic=name, name="min.insync.replicas", value=MIN_INSYNC_REPLICAS)
        raise _unsafe(f"min.insync.replicas is {min_replicas}: an event may be on one broker's disk only", remedy)
    for key, required, risk in _REQUIRED_SETTINGS:
        if values[key] != required:
            raise _unsafe(f"{key} is {values[key]}: {risk}", _ALTER.format(topic=name, name=key, value=required))
    return min_replicas


def require_replicas(topic: TopicMetadata, min_replicas: int) -> None:
    """Raise InboxUnavailable if a partition could not accept an event now."""
    for number, partition in sorted(topic.partitions.items()):
        if len(partition.replicas) < min_replicas:
            raise InboxUnavailable(
                StorageFailure.UNSAFE,
                f"partition {number} has {len(partition.replicas)} replicas and min.insync.replicas is {min_replicas}: "
                "give the topic at least three replicas",
            )
        if len(partition.isrs) < min_replicas:
            raise InboxUnavailable(
                StorageFailure.UNSAFE,
                f"partition {number} has {len(partition.isrs)} replicas in sync and min.insync.replicas is "
                f"{min_replicas}: start the missing brokers again",
            )
        if partition.leader < 0:
            raise InboxUnavailable(
                StorageFailure.UNREACHABLE, f"partition {number} has no leader: start its brokers again"
            )


def require_leaders(admin: AdminClient, topic: TopicMetadata, *, timeout: float) -> None:
    """Raise InboxUnavailable if a partition's leader does not respond, which the metadata may not show yet."""
    offset_specs = {TopicPartition(str(topic.topic), number): _NEWEST for number in topic.partitions}
    futures = admin.list_offsets(offset_specs, request_timeout=timeout)
    for partition, future in futures.items():
        try:
            future.result(timeout=timeout)
        except (KafkaException, TimeoutError) as ex:
            raise InboxUnavailable(
                StorageFailure.UNREACHABLE,
                f"the leader of partition {partition.partition} does not respond: start its broker again",
            ) from ex


def _unsafe(problem: str, remedy: str) -> InboxUnavailable:
    accept = "or add ?durability=weak to WEBHOOK_INBOX to accept that"
    return InboxUnavailable(StorageFailure.UNSAFE, f"{problem}. Run {remedy}, {accept}")
