"""The Kafka inbox: a topic, which consumers of the user's read; there is no relay.

`settings` reads the URL, `safety` what the topic must be, `inbox` writes, `stream` looks at what is there. Sources:
https://kafka.apache.org/documentation/#producerconfigs_acks, #topicconfigs_min.insync.replicas; librdkafka's
CONFIGURATION.md; CloudEvents 1.0 "Kafka Protocol Binding", section 3.2 (binary content mode).
"""

from collections.abc import Callable
from typing import NoReturn

from service.config import InboxUrl
from service.errors import ConfigurationError
from service.storage.kafka.inbox import KafkaInbox
from service.storage.kafka.settings import Settings, problems
from service.storage.kafka.stream import KafkaStream
from service.storage.protocols import Terms

__all__ = ["KafkaInbox", "KafkaStream", "open_erasure", "open_log", "open_stream", "opener", "problems"]


def opener(url: InboxUrl, terms: Terms) -> Callable[[], KafkaInbox]:
    """Make what opens the inbox, with a producer of its own each time; see `Engine`."""
    return lambda: KafkaInbox(Settings.of(url), terms)


def open_stream(url: InboxUrl) -> KafkaStream:
    """Open the topic for looking at it; see `Engine`."""
    return KafkaStream(Settings.of(url))


def open_log(_url: InboxUrl) -> NoReturn:
    """Refuse: a topic has no order over its partitions, and its consumers read it themselves; see `Engine`."""
    raise ConfigurationError(["A Kafka topic is read by consumers of yours, not by the relay or its commands."])


def open_erasure(url: InboxUrl) -> NoReturn:
    """Refuse: nothing is taken out of the middle of a topic; see `Engine`."""
    topic = Settings.of(url).topic
    raise ConfigurationError(
        [
            (
                f"Nothing can be erased from a Kafka topic: all of this person's events remain in {topic!r} until they "
                f"are older than its retention.ms (kafka-configs.sh --describe --topic {topic}). Set it to as long as "
                "you may keep them."
            )
        ]
    )
