"""Read the events of a stream, to show them."""

from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from typing import Any, Final
from urllib.parse import unquote

import nats.js.errors
from nats.aio.msg import Msg
from nats.js.api import AckPolicy, ConsumerConfig, DeliverPolicy

from service.errors import InboxUnavailable
from service.events import Event, decode_event
from service.storage.nats.connection import NatsConnection
from service.storage.nats.settings import NatsSettings
from service.storage.protocols import StreamRecord

STREAM_TIMEOUT_SECONDS: Final = 10.0
FETCH_MESSAGES: Final = 500
CONSUMER_EXPIRY_SECONDS: Final = 60.0
HEADER_PREFIX: Final = "ce-"


class NatsStream:
    """Reads the stream through ephemeral consumers, which the server deletes when they are inactive."""

    def __init__(self, settings: NatsSettings) -> None:
        """Connect; raises InboxUnavailable."""
        self._name = settings.stream
        self._connection = NatsConnection(settings, timeout=STREAM_TIMEOUT_SECONDS)

    def newest(self, limit: int) -> Sequence[StreamRecord]:
        """Return the newest events; see `Stream`."""
        state = self._connection.run(self._connection.stream.stream_info(self._name)).state
        first = max(state.last_seq - limit + 1, state.first_seq, 1)
        return list(self._read(ConsumerConfig(deliver_policy=DeliverPolicy.BY_START_SEQUENCE, opt_start_seq=first)))

    def since(self, time: int | None) -> Iterator[StreamRecord]:
        """Yield the events received since *time*; see `Stream`."""
        if time is None:
            return self._read(ConsumerConfig(deliver_policy=DeliverPolicy.ALL))
        start = datetime.fromtimestamp(time / 1000, UTC)
        return self._read(ConsumerConfig(deliver_policy=DeliverPolicy.BY_START_TIME, opt_start_time=start))

    def at(self, position: str) -> StreamRecord | None:
        """Return the event at *position*, a sequence of the stream; see `Stream`."""
        if not position.isdecimal():
            raise ValueError("must be a sequence of the stream, such as 1057")
        try:
            message = self._connection.run(self._connection.stream.get_msg(self._name, int(position)))
        except InboxUnavailable as ex:
            if isinstance(ex.__cause__, nats.js.errors.NotFoundError):
                return None
            raise
        return StreamRecord(position, _event(message.headers, message.data))

    def close(self) -> None:
        """Close the connection."""
        self._connection.close()

    def _read(self, config: ConsumerConfig) -> Iterator[StreamRecord]:
        """Yield the events from the start that *config* sets to the current end."""
        run, stream = self._connection.run, self._connection.stream
        config.ack_policy = AckPolicy.NONE
        config.inactive_threshold = CONSUMER_EXPIRY_SECONDS
        last = run(stream.stream_info(self._name)).state.last_seq
        consumer = run(stream.add_consumer(self._name, config))
        if not consumer.num_pending:
            return
        subscription = run(stream.pull_subscribe_bind(stream=self._name, consumer=consumer.name))
        while True:
            for message in run(subscription.fetch(FETCH_MESSAGES, timeout=STREAM_TIMEOUT_SECONDS / 2)):
                sequence = message.metadata.sequence.stream
                yield _record(sequence, message)
                if sequence >= last or not message.metadata.num_pending:
                    return


def _record(sequence: int, message: Msg) -> StreamRecord:
    return StreamRecord(str(sequence), _event(message.headers, message.data))


def _event(headers: dict[str, Any] | None, data: bytes | None) -> Event:
    attributes = {
        name.removeprefix(HEADER_PREFIX): unquote(str(value))
        for name, value in (headers or {}).items()
        if name.startswith(HEADER_PREFIX)
    }
    return decode_event(attributes, data or b"")
