"""Map errors of librdkafka and the brokers to InboxUnavailable, each with a remedy."""

# ruff: noqa: SLF001  librdkafka's own errors have only private names

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Final

from confluent_kafka import KafkaError, KafkaException

from service.errors import InboxUnavailable, Unavailability
from service.outcomes import StorageFailure

_REACH: Final = "no broker can be reached: are they up, and are their addresses right?"
_SLOW: Final = "the brokers do not acknowledge in time: check their load, and for replicas that are out of sync"
_FAILURES: Final[dict[int, Unavailability]] = {
    KafkaError.NOT_ENOUGH_REPLICAS: Unavailability(
        StorageFailure.UNSAFE, "too few replicas are in sync: start the missing brokers again"
    ),
    KafkaError.NOT_ENOUGH_REPLICAS_AFTER_APPEND: Unavailability(
        StorageFailure.UNSAFE, "too few replicas are in sync: start the missing brokers again"
    ),
    KafkaError.KAFKA_STORAGE_ERROR: Unavailability(
        StorageFailure.IO_ERROR, "a broker reported a storage error: check its disk and its log"
    ),
    KafkaError.UNKNOWN_TOPIC_OR_PART: Unavailability(StorageFailure.CANNOT_OPEN, "the topic does not exist: create it"),
    KafkaError._UNKNOWN_TOPIC: Unavailability(StorageFailure.CANNOT_OPEN, "the topic does not exist: create it"),
    KafkaError._UNKNOWN_PARTITION: Unavailability(
        StorageFailure.CANNOT_OPEN, "a partition is gone: was the topic deleted and created again?"
    ),
    KafkaError.TOPIC_AUTHORIZATION_FAILED: Unavailability(
        StorageFailure.DENIED,
        "the user may not write to the topic: grant it WRITE and DESCRIBE on the topic",
    ),
    KafkaError.CLUSTER_AUTHORIZATION_FAILED: Unavailability(
        StorageFailure.DENIED, "the user may not use an idempotent producer: grant it IDEMPOTENT_WRITE on the cluster"
    ),
    KafkaError.SASL_AUTHENTICATION_FAILED: Unavailability(
        StorageFailure.DENIED, "the brokers reject the user: check its name and password"
    ),
    KafkaError._AUTHENTICATION: Unavailability(
        StorageFailure.DENIED, "the brokers reject the user: check its name and password"
    ),
    KafkaError._SSL: Unavailability(
        StorageFailure.TLS, "the TLS connection to the brokers failed: check ssl.ca.location and their certificates"
    ),
    KafkaError._ALL_BROKERS_DOWN: Unavailability(StorageFailure.UNREACHABLE, _REACH),
    KafkaError._TRANSPORT: Unavailability(StorageFailure.UNREACHABLE, _REACH),
    KafkaError._RESOLVE: Unavailability(
        StorageFailure.UNREACHABLE, "the brokers' host names can't be resolved: are they right?"
    ),
    KafkaError._TIMED_OUT: Unavailability(StorageFailure.SLOW, _SLOW),
    KafkaError._MSG_TIMED_OUT: Unavailability(StorageFailure.SLOW, _SLOW),
    KafkaError.MSG_SIZE_TOO_LARGE: Unavailability(
        StorageFailure.TOO_LARGE,
        "an event is larger than the topic accepts: raise the topic's max.message.bytes; Meta retries the event",
        alone=True,
    ),
}
_UNKNOWN: Final = Unavailability(StorageFailure.ERROR, "librdkafka reported an error: check the brokers' logs")


@contextmanager
def map_errors() -> Iterator[None]:
    """Raise InboxUnavailable instead of an error of librdkafka."""
    try:
        yield
    except KafkaException as ex:
        raise mapped(ex.args[0]) from ex


def mapped(error: KafkaError) -> InboxUnavailable:
    """Return the InboxUnavailable for *error*, with its remedy and whether a new producer is required."""
    failure = _FAILURES.get(error.code(), _UNKNOWN)
    return replace(failure, reopen=error.fatal()).error(error.name())
