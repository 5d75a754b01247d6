"""The NATS JetStream inbox: a stream, which the user's consumers read; there is no relay.

`settings` parses the URL, `connection` connects to the server, `durability` checks the stream's settings, `inbox` is
the writer, `stream` reads events. Sources: https://docs.nats.io/nats-concepts/jetstream/streams; NATS's ADR-50
(atomic batch publishing); CloudEvents 1.0 "NATS Protocol Binding", section 3.1 (binary content mode).
"""

from collections.abc import Callable
from typing import Final, NoReturn

from service.config import InboxUrl
from service.errors import ConfigurationError
from service.storage.engine import Engine
from service.storage.nats.inbox import NatsInbox
from service.storage.nats.settings import NatsSettings, problems
from service.storage.nats.stream import NatsStream
from service.storage.protocols import Terms

__all__ = ["ENGINE"]


def _inbox_opener(url: InboxUrl, terms: Terms) -> Callable[[], NatsInbox]:
    return lambda: NatsInbox(NatsSettings.of(url), terms)


def _open_erasure(url: InboxUrl) -> NoReturn:
    stream = NatsSettings.of(url).stream
    raise ConfigurationError(
        [
            (
                f"All of this person's events remain in the stream {stream} until they are older than its max_age "
                f"(nats stream info {stream}). To erase them, list their sequences with `events list --subject WHO`, "
                f"and run `nats stream rmm {stream} SEQUENCE` for each."
            )
        ]
    )


ENGINE: Final = Engine(
    name="nats",
    problems=problems,
    inbox_opener=_inbox_opener,
    open_stream=lambda url: NatsStream(NatsSettings.of(url)),
    open_erasure=_open_erasure,
    no_log="There is no relay for NATS: your own consumers read the stream. docs/engines.md shows how.",
)
