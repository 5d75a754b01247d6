"""The NATS JetStream inbox: a stream, which consumers of the user's read; there is no relay.

`settings` reads the URL, `connection` talks to the server, `durability` says what the stream must be, `inbox` writes,
`stream` looks at what is there. Sources: https://docs.nats.io/nats-concepts/jetstream/streams; NATS's ADR-50 (atomic
batch publishing); CloudEvents 1.0 "NATS Protocol Binding", section 3.1 (binary content mode).
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
                f"(nats stream info {stream}). Erase each with NATS's own tool, nats stream rmm {stream} SEQUENCE: "
                "`events list --subject WHO` shows the sequences."
            )
        ]
    )


ENGINE: Final = Engine(
    name="nats",
    problems=problems,
    inbox_opener=_inbox_opener,
    open_stream=lambda url: NatsStream(NatsSettings.of(url)),
    open_erasure=_open_erasure,
    no_log="There is no relay for nats: consumers of yours read the stream, and docs/engines.md shows how.",
)
