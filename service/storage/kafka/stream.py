"""Read the events of a topic, to show them."""

import heapq
import secrets
from collections.abc import Iterator, Sequence
from typing import Final

from confluent_kafka import Consumer, Message, TopicPartition

from service.errors import InboxUnavailable
from service.events import Event, decode_event
from service.outcomes import StorageFailure
from service.storage.kafka.errors import map_errors, mapped
from service.storage.kafka.settings import KafkaSettings, silent_logging
from service.storage.protocols import StreamRecord

STREAM_TIMEOUT_SECONDS: Final = 10.0
HEADER_PREFIX: Final = "ce_"


class KafkaStream:
    """A consumer with a random group that never commits offsets, so it does not affect the user's consumers."""

    def __init__(self, settings: KafkaSettings) -> None:
        self._topic = settings.topic
        self._consumer = Consumer(
            {
                **settings.client,
                **silent_logging(),
                "group.id": f"whatsapp-webhook-look-{secrets.token_hex(8)}",
                "enable.auto.commit": False,
                "auto.offset.reset": "earliest",
                "enable.partition.eof": False,
            }
        )

    def newest(self, limit: int) -> Sequence[StreamRecord]:
        """Return the newest events of all partitions together; see `Stream`."""
        starts = {number: max(low, high - limit) for number, (low, high) in self._ends().items()}
        return heapq.nlargest(limit, self._read(starts), key=lambda each: each.event.received_at)[::-1]

    def since(self, time: int | None) -> Iterator[StreamRecord]:
        """Yield the events received since *time*, one partition after the other; see `Stream`."""
        ends = self._ends()
        if time is None:
            return self._read({number: low for number, (low, _) in ends.items()})
        times = [TopicPartition(self._topic, number, time) for number in ends]
        with map_errors():
            offsets = self._consumer.offsets_for_times(times, timeout=STREAM_TIMEOUT_SECONDS)
        return self._read(
            {each.partition: each.offset if each.offset >= 0 else ends[each.partition][1] for each in offsets}
        )

    def at(self, position: str) -> StreamRecord | None:
        """Return the event at *position*, such as 2:1057; see `Stream`."""
        partition, colon, offset = position.partition(":")
        if not colon or not partition.isdecimal() or not offset.isdecimal():
            raise ValueError("must be a partition and an offset, such as 2:1057")
        low, high = self._ends().get(int(partition), (0, 0))
        if not low <= int(offset) < high:
            return None
        return next(self._read({int(partition): int(offset)}), None)

    def close(self) -> None:
        """Close the consumer."""
        self._consumer.close()

    def _ends(self) -> dict[int, tuple[int, int]]:
        """Return each partition's first offset, and the offset after its last event."""
        with map_errors():
            topic = self._consumer.list_topics(self._topic, timeout=STREAM_TIMEOUT_SECONDS).topics[self._topic]
            if topic.error is not None:
                raise mapped(topic.error)
            ends = {}
            for number in topic.partitions:
                offsets = self._consumer.get_watermark_offsets(
                    TopicPartition(self._topic, number), timeout=STREAM_TIMEOUT_SECONDS
                )
                if offsets is None:
                    raise InboxUnavailable(
                        StorageFailure.SLOW, "the brokers do not return a partition's offsets in time: check their load"
                    )
                ends[number] = offsets
        return ends

    def _read(self, starts: dict[int, int]) -> Iterator[StreamRecord]:
        """Yield the events of each partition, from its offset in *starts* to its current end."""
        ends = self._ends()
        for number, start in sorted(starts.items()):
            if start >= ends[number][1]:
                continue
            self._consumer.assign([TopicPartition(self._topic, number, start)])
            while True:
                message = self._consumer.poll(STREAM_TIMEOUT_SECONDS)
                if message is None:
                    raise InboxUnavailable(
                        StorageFailure.SLOW, "the brokers do not return the topic's events in time: check their load"
                    )
                if (error := message.error()) is not None:
                    raise mapped(error)
                offset = message.offset() or 0
                yield StreamRecord(f"{number}:{offset}", _event(message))
                if offset >= ends[number][1] - 1:
                    break


def _event(message: Message) -> Event:
    headers = message.headers() or []
    pairs = headers.items() if isinstance(headers, dict) else headers
    attributes = {
        name.removeprefix(HEADER_PREFIX): value.decode(errors="replace") if isinstance(value, bytes) else str(value)
        for name, value in pairs
        if name.startswith(HEADER_PREFIX) and value is not None
    }
    data = message.value() or b""
    return decode_event(attributes, data if isinstance(data, bytes) else str(data).encode())
