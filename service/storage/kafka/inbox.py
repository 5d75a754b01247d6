"""The writer of the Kafka inbox."""

import time
from collections.abc import Sequence
from typing import Any, Final

from confluent_kafka import KafkaError, KafkaException, Message, Producer
from confluent_kafka.admin import AdminClient
from confluent_kafka.admin._metadata import TopicMetadata

from service.errors import InboxUnavailable, Unavailability
from service.events import Event, encode_attributes, is_json
from service.outcomes import StorageFailure
from service.storage.kafka import durability
from service.storage.kafka.errors import mapped
from service.storage.kafka.settings import KafkaSettings, silent_logging
from service.storage.protocols import Outcome, Size, Terms

REPLICAS_INTERVAL_SECONDS: Final = 5.0  # between checks of the replicas
SETTINGS_INTERVAL_SECONDS: Final = 30.0  # between checks of the topic's settings
_REJECTIONS: Final = (KafkaError._AUTHENTICATION, KafkaError._SSL)  # noqa: SLF001  no public names
MAX_MESSAGE_BYTES: Final = 16 * 2**20  # more than topics usually accept, so that the topic's own limit applies


class KafkaInbox:
    """A writer of the Kafka inbox; any number of processes may have one."""

    def __init__(self, settings: KafkaSettings, terms: Terms) -> None:
        """Create a producer, and check the topic's durability; raises InboxUnavailable if the check fails."""
        self._topic = settings.topic
        self._weak = settings.weak
        self._timeout = terms.timeout
        self._fatal: KafkaError | None = None
        self._rejection: KafkaError | None = None
        self._unsafe: Unavailability | None = None
        self._checked_at = self._settings_checked_at = float("-inf")
        self._min_replicas = 1
        common: dict[str, Any] = {
            **settings.client,
            "reconnect.backoff.max.ms": 1000,
            **silent_logging(),
            "error_cb": self._store_error,
        }
        try:
            self._admin = AdminClient(common)
            self._producer = Producer(
                {
                    **common,
                    "acks": "all",
                    "enable.idempotence": True,
                    # All events of a put are sent in one request, by `flush`, without a wait for the linger time. Only
                    # errors are reported: a put succeeded if `flush` left nothing, and no error was reported.
                    "linger.ms": 100,
                    "delivery.report.only.error": True,
                    "message.timeout.ms": int(self._timeout * 1000),
                    "message.max.bytes": MAX_MESSAGE_BYTES,
                    "topic.metadata.refresh.interval.ms": 5000,
                }
            )
        except KafkaException as ex:
            raise InboxUnavailable(
                StorageFailure.ERROR, f"librdkafka rejects the settings in WEBHOOK_INBOX: {ex.args[0].str()}"
            ) from ex
        self._check_topic()

    def put(self, events: Sequence[Event]) -> Sequence[Outcome]:
        """Produce *events* and wait until enough replicas have each; every outcome is `unknown`; see `Inbox`."""
        if self._fatal:
            raise InboxUnavailable(
                StorageFailure.ERROR, f"librdkafka reported a fatal error ({self._fatal.name()})", reopen=True
            )
        if self._unsafe:
            raise self._unsafe.error()
        deadline = time.monotonic() + self._timeout
        batch = _Batch()
        for event in events:
            self._produce(event, batch, deadline)
        unsent = self._producer.flush(max(deadline - time.monotonic(), 0))
        if batch.error:
            raise mapped(batch.error)
        if unsent:
            raise InboxUnavailable(StorageFailure.SLOW, "the brokers do not acknowledge in time: check their load")
        return [Outcome.UNKNOWN] * len(events)

    def _produce(self, event: Event, batch: "_Batch", deadline: float) -> None:
        while True:
            try:
                self._producer.produce(
                    self._topic,
                    event.data,
                    event.partitionkey,
                    headers=headers(event),
                    timestamp=event.received_at,
                    on_delivery=batch.store_error,
                )
            except BufferError:
                if time.monotonic() >= deadline:
                    raise InboxUnavailable(
                        StorageFailure.SLOW, "the producer's queue is full: the brokers are too slow, check their load"
                    ) from None
                self._producer.poll(0.01)
            except KafkaException as ex:
                raise mapped(ex.args[0]) from ex
            else:
                return

    def probe(self) -> None:
        """Check that each partition's leader responds, as no harmless record can be written; see `Inbox`."""
        topic = self._check_topic()
        durability.require_leaders(self._admin, topic, timeout=self._timeout / 2)

    def purge(self, _now: int) -> bool:
        """Check the topic again; the brokers purge it themselves; see `Inbox`."""
        self._producer.poll(0)
        if time.monotonic() - self._checked_at >= REPLICAS_INTERVAL_SECONDS:
            self._check_topic()
        return False

    def size(self) -> Size:
        """Return an unknown size; see `Inbox`."""
        return Size()

    def close(self) -> None:
        """Abandon unfinished messages; the producer's threads stop when it is garbage-collected."""
        self._producer.purge(in_queue=True, in_flight=True, blocking=False)
        self._producer.poll(0)

    def _check_topic(self) -> TopicMetadata:
        self._checked_at = time.monotonic()
        self._rejection = None
        try:
            topic = durability.describe(self._admin, self._topic, timeout=self._timeout)
            if not self._weak and self._checked_at - self._settings_checked_at >= SETTINGS_INTERVAL_SECONDS:
                self._min_replicas = durability.require_settings(self._admin, topic, timeout=self._timeout)
                self._settings_checked_at = self._checked_at
            durability.require_replicas(topic, self._min_replicas)
        except InboxUnavailable as ex:
            self._unsafe = ex.stored() if ex.reason == StorageFailure.UNSAFE else None
            self._admin.poll(0)  # runs the error callback, which gets the reason why no broker could be reached
            if self._rejection and ex.reason in (StorageFailure.UNREACHABLE, StorageFailure.SLOW):
                raise mapped(self._rejection) from ex
            raise
        self._unsafe = None
        return topic

    def _store_error(self, error: KafkaError) -> None:
        if error.fatal():
            self._fatal = error
        if error.code() in _REJECTIONS:
            self._rejection = error


class _Batch:
    """The last error of the events of one put."""

    def __init__(self) -> None:
        self.error: KafkaError | None = None

    def store_error(self, error: KafkaError | None, _message: Message) -> None:
        """Store the error of an event that could not be delivered; called by `flush`."""
        self.error = error or self.error


def headers(event: Event) -> list[tuple[str, str | bytes | None]]:
    """Return the headers of a CloudEvent in binary content mode, with its trace context."""
    content_type = "application/json" if is_json(event) else "application/octet-stream"
    headers: list[tuple[str, str | bytes | None]] = [("content-type", content_type)]
    headers += [("ce_" + name, value) for name, value in encode_attributes(event).items()]
    if event.traceparent:
        headers.append(("traceparent", event.traceparent))
    return headers
