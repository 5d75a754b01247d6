"""Looking at what a topic holds."""

import heapq
import secrets
from collections.abc import Iterator, Sequence
from typing import Final

from confluent_kafka import Consumer, Message, TopicPartition

from service.errors import InboxUnavailable
from service.events import Event, heard
from service.outcomes import StorageFailure
from service.storage.kafka.errors import map_errors, mapped
from service.storage.kafka.settings import KafkaSettings, quiet
from service.storage.protocols import Placed

STREAM_TIMEOUT_SECONDS: Final = 10.0
HEADER_PREFIX: Final = "ce_"


class KafkaStream:
    """A consumer without a group that matters: it reads, and leaves no trace of where it was."""

    def __init__(self, settings: KafkaSettings) -> None:
        self._topic = settings.topic
        self._consumer = Consumer(
            {
                **settings.client,
                **quiet(),
                "group.id": f"whatsapp-webhook-look-{secrets.token_hex(8)}",
                "enable.auto.commit": False,
                "auto.offset.reset": "earliest",
                "enable.partition.eof": False,
            }
        )

    def newest(self, limit: int) -> Sequence[Placed]:
        """Give the newest events over all partitions; see `Stream`."""
        starts = {number: max(low, high - limit) for number, (low, high) in self._ends().items()}
        return heapq.nlargest(limit, self._read(starts), key=lambda each: each.event.received_at)[::-1]

    def since(self, time: int | None) -> Iterator[Placed]:
        """Give what was received since *time*, a partition after the other; see `Stream`."""
        ends = self._ends()
        if time is None:
            return self._read({number: low for number, (low, _) in ends.items()})
        asked = [TopicPartition(self._topic, number, time) for number in ends]
        with map_errors():
            found = self._consumer.offsets_for_times(asked, timeout=STREAM_TIMEOUT_SECONDS)
        return self._read(
            {each.partition: each.offset if each.offset >= 0 else ends[each.partition][1] for each in found}
        )

    def at(self, position: str) -> Placed | None:
        """Give the event at *position*, such as 2:1057; see `Stream`."""
        partition, colon, offset = position.partition(":")
        if not colon or not partition.isdecimal() or not offset.isdecimal():
            raise ValueError("wants the partition and the offset, such as 2:1057")
        low, high = self._ends().get(int(partition), (0, 0))
        if not low <= int(offset) < high:
            return None
        return next(self._read({int(partition): int(offset)}), None)

    def close(self) -> None:
        """Let go of the brokers."""
        self._consumer.close()

    def _ends(self) -> dict[int, tuple[int, int]]:
        """Give the first offset of each partition, and the one behind its last."""
        with map_errors():
            topic = self._consumer.list_topics(self._topic, timeout=STREAM_TIMEOUT_SECONDS).topics[self._topic]
            if topic.error is not None:
                raise mapped(topic.error)
            found = {}
            for number in topic.partitions:
                ends = self._consumer.get_watermark_offsets(
                    TopicPartition(self._topic, number), timeout=STREAM_TIMEOUT_SECONDS
                )
                if ends is None:
                    raise InboxUnavailable(StorageFailure.SLOW, "the brokers do not say in time where a partition ends")
                found[number] = ends
        return found

    def _read(self, starts: dict[int, int]) -> Iterator[Placed]:
        """Read each partition from its start to what is its end now."""
        ends = self._ends()
        for number, start in sorted(starts.items()):
            if start >= ends[number][1]:
                continue
            self._consumer.assign([TopicPartition(self._topic, number, start)])
            while True:
                message = self._consumer.poll(STREAM_TIMEOUT_SECONDS)
                if message is None:
                    raise InboxUnavailable(StorageFailure.SLOW, "the brokers do not give what the topic holds in time")
                if (error := message.error()) is not None:
                    raise mapped(error)
                offset = message.offset() or 0
                yield Placed(f"{number}:{offset}", _event(message))
                if offset >= ends[number][1] - 1:
                    break


def _event(message: Message) -> Event:
    headers = message.headers() or []
    pairs = headers.items() if isinstance(headers, dict) else headers
    told = {
        name.removeprefix(HEADER_PREFIX): value.decode(errors="replace") if isinstance(value, bytes) else str(value)
        for name, value in pairs
        if name.startswith(HEADER_PREFIX) and value is not None
    }
    data = message.value() or b""
    return heard(told, data if isinstance(data, bytes) else str(data).encode())
