"""The writing half."""

import asyncio
import json
import re
import secrets
import time
from collections.abc import Sequence
from typing import Any, Final, NamedTuple

import nats.js.errors
from nats.js.api import DiscardPolicy, Header, RetentionPolicy, StorageType, StreamConfig, StreamInfo

from service.errors import InboxUnavailable, Unavailability
from service.events import Event, in_header, is_json, told
from service.outcomes import StorageFailure
from service.storage import deduplication
from service.storage.nats import durability
from service.storage.nats.connection import NatsConnection
from service.storage.nats.errors import TOO_LARGE
from service.storage.nats.settings import NatsSettings
from service.storage.protocols import Outcome, Size, Terms

STREAM_INTERVAL_SECONDS: Final = 5.0  # seconds between looks at the stream
DUPLICATE_WINDOW_SECONDS: Final = 1800.0  # seconds in which a stream that we make tells repeats; it costs memory
MAX_BATCH_MESSAGES: Final = 1000  # messages of one atomic batch, by the server's default
BATCH: Final = "atomic publish"  # how the server's refusals of a batch begin, a duplicate in it among them
BATCH_HEADERS: Final = 256  # bytes, of what a batch adds to a message
MAX_HEADERS_BYTES: Final = 60_000  # bytes; the server refuses 64 KiB
_NOT_IN_A_SUBJECT: Final = re.compile(r"[^A-Za-z0-9_-]")


class _Message(NamedTuple):
    """An event as it is published."""

    id: str
    subject: str
    data: bytes
    headers: dict[str, str]


class NatsInbox:
    """The writing half; any number of processes have one each."""

    def __init__(self, settings: NatsSettings, terms: Terms) -> None:
        """Connect, and make the stream where there is none.

        Raises InboxUnavailable where the server can't be reached, or could not keep the promise.
        """
        self._settings = settings
        self._retention = terms.retention / 1000
        self._unsafe: Unavailability | None = None
        self._looked = float("-inf")
        self._size = Size()
        self._connection = NatsConnection(settings, timeout=terms.timeout)
        try:
            self._look()
        except BaseException:
            self._connection.close()
            raise

    def put(self, events: Sequence[Event]) -> Sequence[Outcome]:
        """Publish *events*, as atomic batches where the stream takes them; see `Inbox`."""
        if self._unsafe:
            raise self._unsafe.error()
        messages = [self._message(event) for event in deduplication.distinct(events)]
        there: set[str] = set()
        for start in range(0, len(messages), MAX_BATCH_MESSAGES):
            there |= self._connection.run(self._publish(messages[start : start + MAX_BATCH_MESSAGES]))
        self._size = self._size._replace(events=(self._size.events or 0) + len(messages) - len(there))
        return deduplication.outcomes(events, there)

    async def _publish(self, messages: Sequence[_Message]) -> set[str]:
        """Give the ids of those that were there, as far as the stream's window goes."""
        if not self._is_atomic or len(messages) == 1:
            return await self._publish_singly(messages)
        *most, last = messages
        batch = {Header.BATCH_ID.value: secrets.token_hex(16)}
        for number, each in enumerate(most, start=1):
            more = {**batch, Header.BATCH_SEQUENCE.value: str(number)}
            await self._connection.client.publish(each.subject, each.data, headers=each.headers | more)
        more = {**batch, Header.BATCH_SEQUENCE.value: str(len(messages)), Header.BATCH_COMMIT.value: "1"}
        try:
            await self._ask(last, more)
        except nats.js.errors.APIError as ex:
            # Which one was there, only each alone is told; and a batch may have no room beside others.
            if (ex.description or "").startswith(BATCH):
                return await self._publish_singly(messages)
            raise
        return set()

    async def _publish_singly(self, messages: Sequence[_Message]) -> set[str]:
        answers = await asyncio.gather(*(self._ask(each, {}) for each in messages))
        return {each.id for each, answer in zip(messages, answers, strict=True) if answer.get("duplicate")}

    async def _ask(self, message: _Message, more: dict[str, str]) -> dict[str, Any]:
        client, timeout = self._connection.client, self._connection.timeout
        found = await client.request(message.subject, message.data, timeout=timeout, headers=message.headers | more)
        answer: dict[str, Any] = json.loads(found.data)
        if "error" in answer:
            raise nats.js.errors.APIError.from_error(answer["error"])
        if answer.get("stream") != self._settings.stream:
            raise InboxUnavailable(
                StorageFailure.FOREIGN, f"another stream ({answer.get('stream')}) takes the subject: mend it"
            )
        return answer

    def _message(self, event: Event) -> _Message:
        """Write an event, before anything of its batch is sent; raises InboxUnavailable where it is too large."""
        headers = self._headers(event)
        taken = BATCH_HEADERS + sum(len(name) + len(value) + 4 for name, value in headers.items())
        if taken > MAX_HEADERS_BYTES or taken + len(event.data) > self._connection.client.max_payload:
            raise TOO_LARGE.error()
        return _Message(event.id, self._subject(event), event.data, headers)

    def _subject(self, event: Event) -> str:
        """Give `<subject>.<phone number or account>.<type>`, so that a consumer may choose."""
        number = _NOT_IN_A_SUBJECT.sub("_", event.source.rpartition("/")[2]) or "_"
        words = (_NOT_IN_A_SUBJECT.sub("_", word) or "_" for word in event.type.split("."))
        return ".".join((self._settings.subject, number, *words))

    def _headers(self, event: Event) -> dict[str, str]:
        found = {"ce-" + name: in_header(value) for name, value in told(event).items()}
        found[Header.MSG_ID.value] = in_header(event.id)
        found["content-type"] = "application/json" if is_json(event) else "application/octet-stream"
        if event.traceparent:
            found["traceparent"] = event.traceparent
        return found

    def probe(self) -> None:
        """See that the stream is there and has a leader: nothing harmless can be written; see `Inbox`."""
        self._look()

    def purge(self, _now: int) -> bool:
        """Look at the stream again: what is too old, the server drops; see `Inbox`."""
        self._connection.breathe()
        if time.monotonic() - self._looked >= STREAM_INTERVAL_SECONDS:
            self._look()
        return False

    def size(self) -> Size:
        """Say what the stream held when it was last looked at, and what was put since; see `Inbox`."""
        return self._size

    def close(self) -> None:
        """Let go of the server."""
        self._connection.close()

    def _look(self) -> None:
        self._looked = time.monotonic()
        try:
            found = self._connection.run(self._stream())
            if not self._settings.weak:
                durability.require_stream(found.config, self._settings.subject)
                durability.require_disk(found, self._connection.server_id, self._settings.options.get("monitor"))
        except InboxUnavailable as ex:
            self._unsafe = ex.stored() if ex.reason == StorageFailure.UNSAFE else None
            raise
        self._unsafe = None
        self._is_atomic = bool(found.config.allow_atomic)
        self._size = Size(found.state.messages, found.state.bytes)

    async def _stream(self) -> StreamInfo:
        stream = self._connection.stream
        try:
            return await stream.stream_info(self._settings.stream)
        except nats.js.errors.NotFoundError:
            return await stream.add_stream(self._wanted())

    def _wanted(self) -> StreamConfig:
        return StreamConfig(
            name=self._settings.stream,
            subjects=[f"{self._settings.subject}.>"],
            storage=StorageType.FILE,
            retention=RetentionPolicy.LIMITS,
            discard=DiscardPolicy.NEW,
            max_age=self._retention,
            num_replicas=self._settings.replicas(clustered=bool(self._connection.client.discovered_servers)),
            duplicate_window=min(DUPLICATE_WINDOW_SECONDS, self._retention),
            allow_atomic=True,
            allow_direct=True,
        )
