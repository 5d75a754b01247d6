"""The engines as the contract tests see them: one row each, and real servers for those that need one."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path
from typing import NamedTuple

from service.config import InboxUrl, inbox_url
from service.events import Event
from service.storage import engines
from service.storage.memory import MemoryInbox
from service.storage.protocols import Inbox, Terms
from tests.support.servers.kafka import Kafka
from tests.support.servers.nats import Nats
from tests.support.servers.postgresql import Postgresql

HOUR = 3_600_000
EVERYTHING = 10_000


class Row(NamedTuple):
    """An engine as the tests see it: how to get the URL of a new inbox, and its optional capabilities."""

    place: Callable[[Path, "Servers"], str]
    tells_duplicates: bool = True
    purges: bool = True
    limits_events: bool = False  # has a maximum event size, by default 1 MB


# One row per engine.
ROWS = {
    "sqlite": Row(lambda directory, _: f"sqlite://{directory}/inbox.db"),
    "postgresql": Row(lambda _, servers: servers.postgresql().new_database()),
    "kafka": Row(
        lambda _, servers: servers.kafka().new_topic(), tells_duplicates=False, purges=False, limits_events=True
    ),
    "nats": Row(lambda _, servers: servers.nats().new_stream(), purges=False, limits_events=True),
    "memory": Row(lambda *_: "memory://?durability=weak"),
}
ALL = tuple(ROWS)
WITH_LOG = tuple(name for name in ROWS if engines.load(inbox_url(f"{name}://host")).open_log)
SEVERAL_WRITERS = tuple(name for name in ROWS if engines.load(inbox_url(f"{name}://host")).has_several_writers)
TELLS_DUPLICATES = tuple(name for name, row in ROWS.items() if row.tells_duplicates)
LIMITED = tuple(name for name, row in ROWS.items() if row.limits_events)
PURGES = tuple(name for name, row in ROWS.items() if row.purges)


class Subject(NamedTuple):
    """An engine with a new, empty inbox for the test, with an hour of retention."""

    url: InboxUrl
    opener: Callable[[], Inbox]

    @classmethod
    def of(cls, url: InboxUrl, *, body_retention: int = HOUR, timeout: float = 10.0) -> "Subject":
        terms = Terms(HOUR, body_retention, timeout)
        return cls(url, engines.load(url).inbox_opener(url, terms))

    @contextmanager
    def opened(self) -> Iterator[Inbox]:
        """Open the inbox until the block exits."""
        with closing(self.opener()) as inbox:
            yield inbox

    def kept(self) -> list[Event]:
        """Return all stored events in order, read as by another process."""
        if self.url.engine == "memory":
            inbox = self.opener()
            assert isinstance(inbox, MemoryInbox)
            return [record.event for record in inbox.read(0, EVERYTHING)]
        if open_stream := engines.load(self.url).open_stream:
            with closing(open_stream(self.url)) as stream:
                return [event for _, event in stream.since(None)]
        with closing(engines.open_log(self.url)) as log:
            return [record.event for record in log.read(0, EVERYTHING)]


class Servers:
    """Servers that are started when the first test needs them."""

    def __init__(self) -> None:
        self._stack = ExitStack()
        self._postgresql: Postgresql | None = None
        self._kafka: Kafka | None = None
        self._nats: Nats | None = None

    def postgresql(self) -> Postgresql:
        if self._postgresql is None:
            self._postgresql = self._stack.enter_context(Postgresql())
        return self._postgresql

    def kafka(self) -> Kafka:
        """Return the three brokers."""
        if self._kafka is None:
            self._kafka = self._stack.enter_context(Kafka())
        return self._kafka

    def nats(self) -> Nats:
        if self._nats is None:
            self._nats = self._stack.enter_context(Nats())
        return self._nats

    def close(self) -> None:
        self._stack.close()


def place(name: str, directory: Path, servers: Servers) -> InboxUrl:
    """Return the URL of a new inbox."""
    return inbox_url(ROWS[name].place(directory, servers))
