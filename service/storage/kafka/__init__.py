"""The Kafka inbox: a topic, which the user's consumers read; there is no relay.

`settings` parses the URL, `durability` checks the topic's settings, `inbox` is the writer, `stream` reads events.
Sources: https://kafka.apache.org/documentation/#producerconfigs_acks, #topicconfigs_min.insync.replicas; librdkafka's
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
                f"Events can't be erased from a Kafka topic: all of this person's events remain in {topic!r} until "
                f"they are older than its retention.ms (kafka-configs.sh --describe --topic {topic}). Set retention.ms "
                "to the longest time for which you may store personal data."
            )
        ]
    )


ENGINE: Final = Engine(
    name="kafka",
    problems=problems,
    inbox_opener=_inbox_opener,
    open_stream=lambda url: KafkaStream(KafkaSettings.of(url)),
    open_erasure=_open_erasure,
    no_log="There is no relay for Kafka: your own consumers read the topic. docs/engines.md shows how.",
)
