"""The writer of the NATS inbox."""

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
from service.events import Event, encode_attributes, in_header, is_json
from service.outcomes import StorageFailure
from service.storage import deduplication
from service.storage.nats import durability
from service.storage.nats.connection import NatsConnection
from service.storage.nats.errors import TOO_LARGE
from service.storage.nats.settings import NatsSettings
from service.storage.protocols import Outcome, Size, Terms

STREAM_INTERVAL_SECONDS: Final = 5.0  # between checks of the stream
DUPLICATE_WINDOW_SECONDS: Final = 1800.0  # of a stream that we create; a longer one costs the server memory
MAX_BATCH_MESSAGES: Final = 1000  # the server's default limit of an atomic batch
BATCH_ERROR_PREFIX: Final = "atomic publish"  # of the server's errors about a batch, also about a duplicate in it
BATCH_HEADERS_BYTES: Final = 256  # that a batch adds to each message
MAX_HEADERS_BYTES: Final = 60_000  # the server's limit is 64 KiB
_FORBIDDEN_IN_SUBJECTS: Final = re.compile(r"[^A-Za-z0-9_-]")


class _Message(NamedTuple):
    """An event as a NATS message."""

    id: str
    subject: str
    data: bytes
    headers: dict[str, str]


class NatsInbox:
    """A writer of the NATS inbox; any number of processes may have one."""

    def __init__(self, settings: NatsSettings, terms: Terms) -> None:
        """Connect, and create the stream if it does not exist.

        Raises InboxUnavailable if the server can't be reached, or fails the durability check.
        """
        self._settings = settings
        self._retention_seconds = terms.retention / 1000
        self._unsafe: Unavailability | None = None
        self._checked_at = float("-inf")
        self._size = Size()
        self._connection = NatsConnection(settings, timeout=terms.timeout)
        try:
            self._check_stream()
        except BaseException:
            self._connection.close()
            raise

    def put(self, events: Sequence[Event]) -> Sequence[Outcome]:
        """Publish *events*, in atomic batches if the stream allows them; see `Inbox`."""
        if self._unsafe:
            raise self._unsafe.error()
        messages = [self._message(event) for event in deduplication.distinct(events)]
        duplicate_ids: set[str] = set()
        for start in range(0, len(messages), MAX_BATCH_MESSAGES):
            duplicate_ids |= self._connection.run(self._publish(messages[start : start + MAX_BATCH_MESSAGES]))
        self._size = self._size._replace(events=(self._size.events or 0) + len(messages) - len(duplicate_ids))
        return deduplication.outcomes(events, duplicate_ids)

    async def _publish(self, messages: Sequence[_Message]) -> set[str]:
        """Publish messages, and return the ids of duplicates within the stream's duplicate window."""
        if not self._is_atomic or len(messages) == 1:
            return await self._publish_singly(messages)
        *first_messages, last = messages
        batch = {Header.BATCH_ID.value: secrets.token_hex(16)}
        for number, each in enumerate(first_messages, start=1):
            batch_headers = {**batch, Header.BATCH_SEQUENCE.value: str(number)}
            await self._connection.client.publish(each.subject, each.data, headers=each.headers | batch_headers)
        commit_headers = {**batch, Header.BATCH_SEQUENCE.value: str(len(messages)), Header.BATCH_COMMIT.value: "1"}
        try:
            await self._request(last, commit_headers)
        except nats.js.errors.APIError as ex:
            # The server reports which message is a duplicate only if each is published alone. It also rejects a batch
            # if too many others are in flight.
            if (ex.description or "").startswith(BATCH_ERROR_PREFIX):
                return await self._publish_singly(messages)
            raise
        return set()

    async def _publish_singly(self, messages: Sequence[_Message]) -> set[str]:
        answers = await asyncio.gather(*(self._request(each, {}) for each in messages))
        return {each.id for each, answer in zip(messages, answers, strict=True) if answer.get("duplicate")}

    async def _request(self, message: _Message, more_headers: dict[str, str]) -> dict[str, Any]:
        """Publish one message, and return the stream's acknowledgement."""
        client, timeout, headers = self._connection.client, self._connection.timeout, message.headers | more_headers
        reply = await client.request(message.subject, message.data, timeout=timeout, headers=headers)
        answer: dict[str, Any] = json.loads(reply.data)
        if "error" in answer:
            raise nats.js.errors.APIError.from_error(answer["error"])
        if answer.get("stream") != self._settings.stream:
            raise InboxUnavailable(
                StorageFailure.FOREIGN,
                f"another stream ({answer.get('stream')}) accepts the subject: remove the subject from it",
            )
        return answer

    def _message(self, event: Event) -> _Message:
        """Encode an event, before any message of its batch is sent; raises InboxUnavailable if it is too large."""
        headers = self._headers(event)
        headers_bytes = BATCH_HEADERS_BYTES + sum(len(name) + len(value) + 4 for name, value in headers.items())
        if headers_bytes > MAX_HEADERS_BYTES or headers_bytes + len(event.data) > self._connection.client.max_payload:
            raise TOO_LARGE.error()
        return _Message(event.id, self._subject(event), event.data, headers)

    def _subject(self, event: Event) -> str:
        """Return `<subject>.<phone number or account>.<type>`, so that a consumer can filter by it."""
        number = _FORBIDDEN_IN_SUBJECTS.sub("_", event.source.rpartition("/")[2]) or "_"
        words = (_FORBIDDEN_IN_SUBJECTS.sub("_", word) or "_" for word in event.type.split("."))
        return ".".join((self._settings.subject, number, *words))

    def _headers(self, event: Event) -> dict[str, str]:
        headers = {"ce-" + name: in_header(value) for name, value in encode_attributes(event).items()}
        headers[Header.MSG_ID.value] = in_header(event.id)
        headers["content-type"] = "application/json" if is_json(event) else "application/octet-stream"
        if event.traceparent:
            headers["traceparent"] = event.traceparent
        return headers

    def probe(self) -> None:
        """Check the stream's settings and that it responds, as no harmless message can be written; see `Inbox`."""
        self._check_stream()

    def purge(self, _now: int) -> bool:
        """Check the stream again; the server purges it by its max_age; see `Inbox`."""
        self._connection.answer_pings()
        if time.monotonic() - self._checked_at >= STREAM_INTERVAL_SECONDS:
            self._check_stream()
        return False

    def size(self) -> Size:
        """Return the stream's size at the last check plus the events put since; see `Inbox`."""
        return self._size

    def close(self) -> None:
        """Close the connection."""
        self._connection.close()

    def _check_stream(self) -> None:
        self._checked_at = time.monotonic()
        try:
            info = self._connection.run(self._stream_info())
            if not self._settings.weak:
                durability.require_stream(info.config, self._settings.subject)
                durability.require_disk(info, self._connection.server_id, self._settings.options.get("monitor"))
        except InboxUnavailable as ex:
            self._unsafe = ex.stored() if ex.reason == StorageFailure.UNSAFE else None
            raise
        self._unsafe = None
        self._is_atomic = bool(info.config.allow_atomic)
        self._size = Size(info.state.messages, info.state.bytes)

    async def _stream_info(self) -> StreamInfo:
        """Return the state of the stream; create it if it does not exist."""
        stream = self._connection.stream
        try:
            return await stream.stream_info(self._settings.stream)
        except nats.js.errors.NotFoundError:
            return await stream.add_stream(self._new_stream())

    def _new_stream(self) -> StreamConfig:
        return StreamConfig(
            name=self._settings.stream,
            subjects=[f"{self._settings.subject}.>"],
            storage=StorageType.FILE,
            retention=RetentionPolicy.LIMITS,
            discard=DiscardPolicy.NEW,
            max_age=self._retention_seconds,
            num_replicas=self._settings.replicas(clustered=bool(self._connection.client.discovered_servers)),
            duplicate_window=min(DUPLICATE_WINDOW_SECONDS, self._retention_seconds),
            allow_atomic=True,
            allow_direct=True,
        )
