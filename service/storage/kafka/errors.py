"""From what librdkafka and the brokers say to what the operator can do."""

# ruff: noqa: SLF001  errors of librdkafka itself have no other names

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Final

from confluent_kafka import KafkaError, KafkaException

from service.errors import InboxUnavailable, Unavailability
from service.outcomes import StorageFailure

_REACH: Final = "no broker can be reached: are they up, and are these their addresses?"
_SLOW: Final = "the brokers do not acknowledge in time: look at their load, and at replicas that are out of sync"
_FAILURES: Final[dict[int, Unavailability]] = {
    KafkaError.NOT_ENOUGH_REPLICAS: Unavailability(
        StorageFailure.UNSAFE, "too few replicas are in sync: bring the missing brokers back"
    ),
    KafkaError.NOT_ENOUGH_REPLICAS_AFTER_APPEND: Unavailability(
        StorageFailure.UNSAFE, "too few replicas are in sync: bring the brokers back"
    ),
    KafkaError.KAFKA_STORAGE_ERROR: Unavailability(
        StorageFailure.IO_ERROR, "a broker's disk does not do what it is told: look at its log"
    ),
    KafkaError.UNKNOWN_TOPIC_OR_PART: Unavailability(StorageFailure.CANNOT_OPEN, "there is no such topic: create it"),
    KafkaError._UNKNOWN_TOPIC: Unavailability(StorageFailure.CANNOT_OPEN, "there is no such topic: create it"),
    KafkaError._UNKNOWN_PARTITION: Unavailability(
        StorageFailure.CANNOT_OPEN, "a partition is gone: was the topic made anew?"
    ),
    KafkaError.TOPIC_AUTHORIZATION_FAILED: Unavailability(
        StorageFailure.DENIED,
        "the user may not write to the topic: give it WRITE and DESCRIBE",
    ),
    KafkaError.CLUSTER_AUTHORIZATION_FAILED: Unavailability(
        StorageFailure.DENIED, "the user may not write with idempotence: give it the right"
    ),
    KafkaError.SASL_AUTHENTICATION_FAILED: Unavailability(
        StorageFailure.DENIED, "the brokers refuse the user: look at its name and password"
    ),
    KafkaError._AUTHENTICATION: Unavailability(
        StorageFailure.DENIED, "the brokers refuse the user: look at its name and password"
    ),
    KafkaError._SSL: Unavailability(
        StorageFailure.TLS, "no TLS with the brokers: look at ssl.ca.location and their certificates"
    ),
    KafkaError._ALL_BROKERS_DOWN: Unavailability(StorageFailure.UNREACHABLE, _REACH),
    KafkaError._TRANSPORT: Unavailability(StorageFailure.UNREACHABLE, _REACH),
    KafkaError._RESOLVE: Unavailability(
        StorageFailure.UNREACHABLE, "the brokers' names can't be resolved: are they right?"
    ),
    KafkaError._TIMED_OUT: Unavailability(StorageFailure.SLOW, _SLOW),
    KafkaError._MSG_TIMED_OUT: Unavailability(StorageFailure.SLOW, _SLOW),
    KafkaError.MSG_SIZE_TOO_LARGE: Unavailability(
        StorageFailure.TOO_LARGE,
        "an event is larger than the topic takes: raise its max.message.bytes; Meta sends it again meanwhile",
        alone=True,
    ),
}
_UNKNOWN: Final = Unavailability(StorageFailure.ERROR, "librdkafka does not know what to do")


@contextmanager
def map_errors() -> Iterator[None]:
    """Raise InboxUnavailable for whatever librdkafka raises within."""
    try:
        yield
    except KafkaException as ex:
        raise mapped(ex.args[0]) from ex


def mapped(error: KafkaError) -> InboxUnavailable:
    """Return the error with its remedy, and whether the producer can still be trusted."""
    failure = _FAILURES.get(error.code(), _UNKNOWN)
    return replace(failure, reopen=error.fatal()).error(error.name())
