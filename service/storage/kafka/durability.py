"""What the topic must be, before anybody is told 200."""

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

MIN_INSYNC_REPLICAS: Final = 2  # replicas that have an event before it is acknowledged
_NEWEST: Final[OffsetSpec] = OffsetSpec.latest()  # type: ignore[no-untyped-call]
_ALTER: Final = "kafka-configs.sh --alter --topic {topic} --add-config {name}={value}"
# What a topic's setting must be; what goes wrong else; what the remedy sets it to.
_SETTINGS: Final[tuple[tuple[str, str, str], ...]] = (
    ("unclean.leader.election.enable", "false", "a replica that lacks events may become the leader"),
    ("cleanup.policy", "delete", "compaction drops all but the last event of a key"),
    ("retention.bytes", "-1", "a burst evicts what nobody has read yet"),
)


def describe(admin: AdminClient, topic: str, *, timeout: float) -> TopicMetadata:
    """Give the topic as the brokers know it; raises InboxUnavailable where there is none."""
    with map_errors():
        found = admin.list_topics(timeout=timeout).topics.get(topic)
    if found is None:
        settings = f"--replication-factor 3 --config min.insync.replicas={MIN_INSYNC_REPLICAS}"
        command = f"kafka-topics.sh --create --topic {topic} {settings}"
        raise InboxUnavailable(StorageFailure.CANNOT_OPEN, f"there is no topic {topic!r}: create it ({command})")
    if found.error is not None:
        raise mapped(found.error)
    return found


def require_settings(admin: AdminClient, topic: TopicMetadata, *, timeout: float) -> int:
    """Raise InboxUnavailable where the topic's settings lose events; give how many replicas must be in sync."""
    name = str(topic.topic)
    resource = ConfigResource(ConfigResource.Type.TOPIC, name)
    try:
        with map_errors():
            (future,) = admin.describe_configs([resource], request_timeout=timeout).values()
            found: Mapping[str, Any] = future.result(timeout=timeout)
    except TimeoutError as ex:
        raise InboxUnavailable(StorageFailure.SLOW, "the brokers do not say the topic's settings in time") from ex
    values = {key: entry.value for key, entry in found.items()}
    least = int(values["min.insync.replicas"])
    if least < MIN_INSYNC_REPLICAS:
        remedy = _ALTER.format(topic=name, name="min.insync.replicas", value=MIN_INSYNC_REPLICAS)
        raise _unsafe(f"min.insync.replicas is {least}, so that one broker's disk may be all that has an event", remedy)
    for key, safe, why in _SETTINGS:
        if values[key] != safe:
            raise _unsafe(f"{key} is {values[key]}: {why}", _ALTER.format(topic=name, name=key, value=safe))
    return least


def require_replicas(topic: TopicMetadata, least: int) -> None:
    """Raise InboxUnavailable where a partition could not take an event now."""
    for number, partition in sorted(topic.partitions.items()):
        if len(partition.replicas) < least:
            raise InboxUnavailable(
                StorageFailure.UNSAFE,
                f"partition {number} has {len(partition.replicas)} replicas and min.insync.replicas is {least}: "
                "give the topic at least three replicas",
            )
        if len(partition.isrs) < least:
            raise InboxUnavailable(
                StorageFailure.UNSAFE,
                f"partition {number} has {len(partition.isrs)} replicas in sync, of {least} that must have an event: "
                "bring the missing brokers back",
            )
        if partition.leader < 0:
            raise InboxUnavailable(
                StorageFailure.UNREACHABLE, f"partition {number} has no leader: bring its brokers back"
            )


def require_leaders(admin: AdminClient, topic: TopicMetadata, *, timeout: float) -> None:
    """Raise InboxUnavailable where a partition's leader does not answer: the brokers may not have noticed yet."""
    asked = {TopicPartition(str(topic.topic), number): _NEWEST for number in topic.partitions}
    futures = admin.list_offsets(asked, request_timeout=timeout)
    for partition, future in futures.items():
        try:
            future.result(timeout=timeout)
        except (KafkaException, TimeoutError) as ex:
            raise InboxUnavailable(
                StorageFailure.UNREACHABLE,
                f"the leader of partition {partition.partition} does not answer: bring its broker back",
            ) from ex


def _unsafe(what: str, remedy: str) -> InboxUnavailable:
    return InboxUnavailable(StorageFailure.UNSAFE, f"{what} ({remedy}), or say ?durability=weak where that is wanted")
