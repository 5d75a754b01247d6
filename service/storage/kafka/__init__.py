"""The Kafka inbox: a topic, which consumers of the user's read; there is no relay.

`settings` reads the URL, `durability` what the topic must be, `inbox` writes, `stream` looks at what is there. Sources:
https://kafka.apache.org/documentation/#producerconfigs_acks, #topicconfigs_min.insync.replicas; librdkafka's
CONFIGURATION.md; CloudEvents 1.0 "Kafka Protocol Binding", section 3.2 (binary content mode).
"""

from collections.abc import Callable
from typing import Final, NoReturn

from service.config import InboxUrl
from service.errors import ConfigurationError
from service.storage.engine import Engine
from service.storage.kafka.inbox import KafkaInbox
from service.storage.kafka.settings import KafkaSettings, problems
from service.storage.kafka.stream import KafkaStream
from service.storage.protocols import Terms

__all__ = ["ENGINE"]


def _inbox_opener(url: InboxUrl, terms: Terms) -> Callable[[], KafkaInbox]:
    return lambda: KafkaInbox(KafkaSettings.of(url), terms)


def _open_erasure(url: InboxUrl) -> NoReturn:
    topic = KafkaSettings.of(url).topic
    raise ConfigurationError(
        [
            (
                f"Nothing can be erased from a Kafka topic: all of this person's events remain in {topic!r} until they "
                f"are older than its retention.ms (kafka-configs.sh --describe --topic {topic}). Set it to as long as "
                "you may keep them."
            )
        ]
    )


ENGINE: Final = Engine(
    name="kafka",
    problems=problems,
    inbox_opener=_inbox_opener,
    open_stream=lambda url: KafkaStream(KafkaSettings.of(url)),
    open_erasure=_open_erasure,
    no_log="There is no relay for kafka: consumers of yours read the topic, and docs/engines.md shows how.",
)
