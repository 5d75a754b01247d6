"""The writing half."""

import asyncio
import json
import re
import secrets
import time
from collections.abc import Sequence
from typing import Any, Final

import nats.js.errors
from nats.js.api import DiscardPolicy, Header, RetentionPolicy, StorageType, StreamConfig, StreamInfo

from service.errors import InboxUnavailable
from service.events import Event, in_header, is_json, told
from service.inbox import repeats
from service.inbox.base import Outcome, Size, Terms
from service.inbox.nats import safety
from service.inbox.nats.connection import TOO_LARGE, Connection
from service.inbox.nats.settings import Settings

LOOK: Final = 5.0  # seconds between looks at the stream
WINDOW: Final = 1800.0  # seconds in which a stream that we make tells repeats; it costs memory
MOST: Final = 1000  # messages of one atomic batch, by the server's default
HEADERS: Final = 4096  # bytes that the headers of a message may take, beside its data
DUPLICATE: Final = 10201  # "atomic publish batch contains duplicate message id"
_NOT_IN_A_SUBJECT: Final = re.compile(r"[^A-Za-z0-9_-]")


class NatsInbox:
    """The writing half; any number of processes have one each."""

    def __init__(self, settings: Settings, terms: Terms) -> None:
        """Connect, and make the stream where there is none.

        Raises InboxUnavailable where the server can't be reached, or could not keep the promise.
        """
        self._settings = settings
        self._retention = terms.retention / 1000
        self._unsafe: InboxUnavailable | None = None
        self._looked = float("-inf")
        self._size = Size()
        self._connection = Connection(settings, timeout=terms.timeout)
        try:
            self._look()
        except BaseException:
            self._connection.close()
            raise

    def put(self, events: Sequence[Event]) -> Sequence[Outcome]:
        """Publish *events*, as atomic batches where the stream takes them; see `Inbox`."""
        if self._unsafe:
            raise self._unsafe
        waiting = repeats.distinct(events)
        if max((len(event.data) for event in waiting), default=0) > self._connection.client.max_payload - HEADERS:
            raise InboxUnavailable("too_large", TOO_LARGE, alone=True)  # before a part of a batch is there
        there: set[str] = set()
        for start in range(0, len(waiting), MOST):
            there |= self._connection.run(self._publish(waiting[start : start + MOST]))
        self._size = self._size._replace(events=(self._size.events or 0) + len(waiting) - len(there))
        return repeats.outcomes(events, there)

    async def _publish(self, events: Sequence[Event]) -> set[str]:
        """Give the ids of those that were there, as far as the stream's window goes."""
        if not self._is_atomic or len(events) == 1:
            return await self._publish_singly(events)
        *most, last = events
        batch = {Header.BATCH_ID.value: secrets.token_hex(16)}
        for number, event in enumerate(most, start=1):
            more = {**batch, Header.BATCH_SEQUENCE.value: str(number)}
            await self._connection.client.publish(self._subject(event), event.data, headers=self._headers(event) | more)
        more = {**batch, Header.BATCH_SEQUENCE.value: str(len(events)), Header.BATCH_COMMIT.value: "1"}
        try:
            await self._ask(last, more)
        except nats.js.errors.APIError as ex:
            if ex.err_code == DUPLICATE:  # which one, only each alone is told
                return await self._publish_singly(events)
            raise
        return set()

    async def _publish_singly(self, events: Sequence[Event]) -> set[str]:
        answers = await asyncio.gather(*(self._ask(event, {}) for event in events))
        return {event.id for event, answer in zip(events, answers, strict=True) if answer.get("duplicate")}

    async def _ask(self, event: Event, more: dict[str, str]) -> dict[str, Any]:
        client, timeout = self._connection.client, self._connection.timeout
        found = await client.request(
            self._subject(event), event.data, timeout=timeout, headers=self._headers(event) | more
        )
        answer: dict[str, Any] = json.loads(found.data)
        if "error" in answer:
            raise nats.js.errors.APIError.from_error(answer["error"])
        if answer.get("stream") != self._settings.stream:
            raise InboxUnavailable("foreign", f"another stream ({answer.get('stream')}) takes the subject: mend it")
        return answer

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
        if time.monotonic() - self._looked >= LOOK:
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
                safety.require_stream(found.config, self._settings.subject)
                safety.require_disk(found.config, self._settings.options.get("monitor"))
        except InboxUnavailable as ex:
            self._unsafe = ex if ex.reason == "unsafe" else None
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
            duplicate_window=min(WINDOW, self._retention),
            allow_atomic=True,
            allow_direct=True,
        )
