"""The writing half."""

import time
from collections.abc import Sequence
from typing import Any, Final

from confluent_kafka import KafkaError, KafkaException, Message, Producer
from confluent_kafka.admin import AdminClient
from confluent_kafka.admin._metadata import TopicMetadata

from service.errors import InboxUnavailable, Unavailability
from service.events import Event, is_json, told
from service.outcomes import StorageFailure
from service.storage.kafka import durability
from service.storage.kafka.errors import mapped
from service.storage.kafka.settings import KafkaSettings, quiet
from service.storage.protocols import Outcome, Size, Terms

REPLICAS_INTERVAL_SECONDS: Final = 5.0  # seconds between looks at the replicas
SETTINGS_INTERVAL_SECONDS: Final = 30.0  # seconds between looks at the topic's settings
_REFUSALS: Final = (KafkaError._AUTHENTICATION, KafkaError._SSL)  # noqa: SLF001  named so there
MAX_MESSAGE_BYTES: Final = 16 * 2**20  # bytes; how large an event may be is the topic's to say


class KafkaInbox:
    """The writing half; any number of processes have one each."""

    def __init__(self, settings: KafkaSettings, terms: Terms) -> None:
        """Make a producer, and see that the topic is one that loses nothing; raises InboxUnavailable otherwise."""
        self._topic = settings.topic
        self._weak = settings.weak
        self._timeout = terms.timeout
        self._fatal: KafkaError | None = None
        self._refused: KafkaError | None = None
        self._unsafe: Unavailability | None = None
        self._looked = self._set = float("-inf")
        self._least = 1
        common = {**settings.client, "reconnect.backoff.max.ms": 1000}
        watched: dict[str, Any] = {**common, **quiet(), "error_cb": self._erred}
        try:
            self._admin = AdminClient(watched)
            self._producer = Producer(
                {
                    **watched,
                    "acks": "all",
                    "enable.idempotence": True,
                    # What is put together goes in one request: `flush` sends it, and waits for nothing more. Of success
                    # nothing is heard: then nothing is left to flush, and no error came.
                    "linger.ms": 100,
                    "delivery.report.only.error": True,
                    "message.timeout.ms": int(self._timeout * 1000),
                    "message.max.bytes": MAX_MESSAGE_BYTES,
                    "topic.metadata.refresh.interval.ms": 5000,
                }
            )
        except KafkaException as ex:
            raise InboxUnavailable(
                StorageFailure.ERROR, f"librdkafka takes no such settings: {ex.args[0].str()}"
            ) from ex
        self._look()

    def put(self, events: Sequence[Event]) -> Sequence[Outcome]:
        """Produce *events* and wait until enough replicas have each; see `Inbox`. Of none it is known if it is new."""
        if self._fatal:
            raise InboxUnavailable(StorageFailure.ERROR, f"librdkafka gave up ({self._fatal.name()})", reopen=True)
        if self._unsafe:
            raise self._unsafe.error()
        deadline = time.monotonic() + self._timeout
        batch = _Batch()
        for event in events:
            self._produce(event, batch, deadline)
        left = self._producer.flush(max(deadline - time.monotonic(), 0))
        if batch.error:
            raise mapped(batch.error)
        if left:
            raise InboxUnavailable(StorageFailure.SLOW, "the brokers do not acknowledge in time: look at their load")
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
                    on_delivery=batch.failed,
                )
            except BufferError:
                if time.monotonic() >= deadline:
                    raise InboxUnavailable(
                        StorageFailure.SLOW, "the producer's queue is full: the brokers are too slow"
                    ) from None
                self._producer.poll(0.01)
            except KafkaException as ex:
                raise mapped(ex.args[0]) from ex
            else:
                return

    def probe(self) -> None:
        """See that each partition's leader is there: nothing harmless can be written; see `Inbox`."""
        topic = self._look()
        durability.require_leaders(self._admin, topic, timeout=self._timeout / 2)

    def purge(self, _now: int) -> bool:
        """Look at the topic again: what is too old, the brokers drop; see `Inbox`."""
        self._producer.poll(0)
        if time.monotonic() - self._looked >= REPLICAS_INTERVAL_SECONDS:
            self._look()
        return False

    def size(self) -> Size:
        """Say that nobody knows: what the topic holds is the brokers' to tell; see `Inbox`."""
        return Size()

    def close(self) -> None:
        """Give up what is under way; the producer's threads end with it."""
        self._producer.purge(in_queue=True, in_flight=True, blocking=False)
        self._producer.poll(0)

    def _look(self) -> TopicMetadata:
        self._looked = time.monotonic()
        self._refused = None
        try:
            topic = durability.describe(self._admin, self._topic, timeout=self._timeout)
            if not self._weak and self._looked - self._set >= SETTINGS_INTERVAL_SECONDS:
                self._least = durability.require_settings(self._admin, topic, timeout=self._timeout)
                self._set = self._looked
            durability.require_replicas(topic, self._least)
        except InboxUnavailable as ex:
            self._unsafe = ex.stored() if ex.reason == StorageFailure.UNSAFE else None
            self._admin.poll(0)  # hears why no broker could be reached
            if self._refused and ex.reason in (StorageFailure.UNREACHABLE, StorageFailure.SLOW):
                raise mapped(self._refused) from ex
            raise
        self._unsafe = None
        return topic

    def _erred(self, error: KafkaError) -> None:
        if error.fatal():
            self._fatal = error
        if error.code() in _REFUSALS:
            self._refused = error


class _Batch:
    """What is put together, and what went wrong with it."""

    def __init__(self) -> None:
        self.error: KafkaError | None = None

    def failed(self, error: KafkaError | None, _message: Message) -> None:
        """Hear of one of them that could not be delivered; called by `flush`."""
        self.error = error or self.error


def headers(event: Event) -> list[tuple[str, str | bytes | None]]:
    """Give the headers of a CloudEvent in binary content mode, and the trace that it belongs to."""
    kind = "application/json" if is_json(event) else "application/octet-stream"
    found: list[tuple[str, str | bytes | None]] = [("content-type", kind)]
    found += [("ce_" + name, value) for name, value in told(event).items()]
    if event.traceparent:
        found.append(("traceparent", event.traceparent))
    return found
