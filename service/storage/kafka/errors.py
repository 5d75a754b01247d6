"""From what librdkafka and the brokers say to what the operator can do."""

from typing import Final

from confluent_kafka import KafkaError

from service.errors import InboxUnavailable

_REACH: Final = "no broker can be reached: are they up, and are these their addresses?"
_SLOW: Final = "the brokers do not acknowledge in time: look at their load, and at replicas that are out of sync"
_REASONS: Final[dict[int, tuple[str, str]]] = {
    KafkaError.NOT_ENOUGH_REPLICAS: ("unsafe", "too few replicas are in sync: bring the missing brokers back"),
    KafkaError.NOT_ENOUGH_REPLICAS_AFTER_APPEND: ("unsafe", "too few replicas are in sync: bring the brokers back"),
    KafkaError.KAFKA_STORAGE_ERROR: ("io_error", "a broker's disk does not do what it is told: look at its log"),
    KafkaError.UNKNOWN_TOPIC_OR_PART: ("cannot_open", "there is no such topic: create it"),
    KafkaError._UNKNOWN_TOPIC: ("cannot_open", "there is no such topic: create it"),  # noqa: SLF001  named so there
    KafkaError._UNKNOWN_PARTITION: ("cannot_open", "a partition is gone: was the topic made anew?"),  # noqa: SLF001
    KafkaError.TOPIC_AUTHORIZATION_FAILED: (
        "denied",
        "the user may not write to the topic: give it WRITE and DESCRIBE",
    ),
    KafkaError.CLUSTER_AUTHORIZATION_FAILED: ("denied", "the user may not write with idempotence: give it the right"),
    KafkaError.SASL_AUTHENTICATION_FAILED: ("denied", "the brokers refuse the user: look at its name and password"),
    KafkaError._AUTHENTICATION: ("denied", "the brokers refuse the user: look at its name and password"),  # noqa: SLF001
    KafkaError._SSL: ("tls", "no TLS with the brokers: look at ssl.ca.location and their certificates"),  # noqa: SLF001
    KafkaError._ALL_BROKERS_DOWN: ("unreachable", _REACH),  # noqa: SLF001
    KafkaError._TRANSPORT: ("unreachable", _REACH),  # noqa: SLF001
    KafkaError._RESOLVE: ("unreachable", "the brokers' names can't be resolved: are they right?"),  # noqa: SLF001
    KafkaError._TIMED_OUT: ("slow", _SLOW),  # noqa: SLF001
    KafkaError._MSG_TIMED_OUT: ("slow", _SLOW),  # noqa: SLF001
}
_TOO_LARGE: Final = (
    "an event is larger than the topic takes: raise its max.message.bytes; Meta sends it again meanwhile"
)


def translated(error: KafkaError) -> InboxUnavailable:
    """Say why, with the remedy, and whether the producer is still to be trusted."""
    if error.code() == KafkaError.MSG_SIZE_TOO_LARGE:
        return InboxUnavailable("too_large", _TOO_LARGE, alone=True)
    reason, remedy = _REASONS.get(error.code(), ("error", "librdkafka does not know what to do"))
    return InboxUnavailable(reason, f"{remedy} ({error.name()})", reopen=error.fatal())
