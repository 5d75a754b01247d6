"""The table of engines, and the engine of a URL.

An engine's client library is an optional dependency, and is imported only if the engine is used.
"""

from importlib import import_module
from typing import Final

from service.config import InboxUrl
from service.errors import ConfigurationError
from service.storage.engine import DeliveryStorage, Engine
from service.storage.protocols import Log
from service.storage.urls import problems_with_server, problems_without_server

# Each package has its `Engine` as ENGINE. An engine's name is also that of the extra that installs its client library.
PACKAGES: Final = {
    "sqlite": "service.storage.sqlite",
    "postgresql": "service.storage.postgresql",
    "kafka": "service.storage.kafka",
    "nats": "service.storage.nats",
    "memory": "service.storage.memory",
}


def load(url: InboxUrl) -> Engine:
    """Return the engine of *url*; raises ConfigurationError if there is none, or its client is not installed."""
    if url.engine not in PACKAGES:
        raise ConfigurationError(
            [f"WEBHOOK_INBOX must name an engine: {', '.join(PACKAGES)}. Example: sqlite:///var/lib/inbox.db."]
        )
    try:
        engine: Engine = import_module(PACKAGES[url.engine]).ENGINE
    except ImportError as ex:
        command = f"pip install 'whatsapp-webhook[{url.engine}]'"
        problem = f"WEBHOOK_INBOX names the engine {url.engine}, whose client library is not installed: run {command}."
        raise ConfigurationError([problem]) from ex
    return engine


def problems(url: InboxUrl, workers: int = 1) -> list[str]:
    """Return the problems of *url* with this number of *workers*, in whole sentences."""
    try:
        engine = load(url)
    except ConfigurationError as ex:
        return list(ex.problems)
    check_form = problems_with_server if engine.has_server else problems_without_server
    found = [f"WEBHOOK_INBOX {problem}." for problem in check_form(url) or engine.problems(url)]
    if workers > 1 and not engine.has_several_writers:
        found.append(f"WEBHOOK_WORKERS is above 1, but {engine.name} supports only one worker in one pod: set it to 1.")
    return found


def open_log(url: InboxUrl) -> Log:
    """Open the log of *url*; raises InboxUnavailable, or ConfigurationError if its engine has none."""
    engine = load(url)
    if engine.open_log is None:
        raise ConfigurationError([engine.no_log])
    return engine.open_log(url)


def deliveries(url: InboxUrl) -> DeliveryStorage:
    """Return the storage of the relay's deliveries; raises ConfigurationError if the engine has no relay."""
    engine = load(url)
    if engine.deliveries is None:
        raise ConfigurationError([engine.no_log])
    return engine.deliveries
