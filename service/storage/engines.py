"""The table of engines, and from a URL to its engine.

An engine's client is an optional part of the installation, and is loaded only if the engine is chosen.
"""

from importlib import import_module
from typing import Final

from service.config import InboxUrl
from service.errors import ConfigurationError
from service.storage.engine import DeliveryStorage, Engine
from service.storage.protocols import Log
from service.storage.urls import problems_with_server, problems_without_server

# Each package has its `Engine` as ENGINE; its name is that of the optional part with its client, if it has one.
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
            [f"WEBHOOK_INBOX knows the engines {', '.join(PACKAGES)} only, such as sqlite:///var/lib/inbox.db."]
        )
    try:
        engine: Engine = import_module(PACKAGES[url.engine]).ENGINE
    except ImportError as ex:
        extra = f"pip install 'whatsapp-webhook[{url.engine}]'"
        raise ConfigurationError([f"WEBHOOK_INBOX wants {url.engine}, whose client is not installed: {extra}."]) from ex
    return engine


def problems(url: InboxUrl, workers: int = 1) -> list[str]:
    """Return what is wrong with *url* for so many *workers*, in whole sentences."""
    try:
        engine = load(url)
    except ConfigurationError as ex:
        return list(ex.problems)
    check_form = problems_with_server if engine.has_server else problems_without_server
    found = [f"WEBHOOK_INBOX {problem}." for problem in check_form(url) or engine.problems(url)]
    if workers > 1 and not engine.has_several_writers:
        found.append(f"WEBHOOK_WORKERS is above 1, and {engine.name} serves one worker of one pod: set it to 1.")
    return found


def open_log(url: InboxUrl) -> Log:
    """Open the log of *url*; raises InboxUnavailable, or ConfigurationError if its engine has none."""
    engine = load(url)
    if engine.open_log is None:
        raise ConfigurationError([engine.no_log])
    return engine.open_log(url)


def deliveries(url: InboxUrl) -> DeliveryStorage:
    """Return how the relay's deliveries are stored; raises ConfigurationError if there is no relay for the engine."""
    engine = load(url)
    if engine.deliveries is None:
        raise ConfigurationError([engine.no_log])
    return engine.deliveries
