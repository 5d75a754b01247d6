"""Parse the URL into librdkafka's settings."""

import logging
from pathlib import Path
from typing import Any, Final, NamedTuple, Self
from urllib.parse import parse_qsl, unquote, urlsplit

from service.config import InboxUrl
from service.errors import InboxUnavailable
from service.outcomes import StorageFailure

# librdkafka's own names (see its CONFIGURATION.md); with the suffix `.file`, the value is read from a mounted file.
KNOWN_OPTIONS: Final = (
    "client.id",
    "compression.type",
    "sasl.mechanism",
    "sasl.password",
    "sasl.username",
    "security.protocol",
    "ssl.ca.location",
    "ssl.certificate.location",
    "ssl.endpoint.identification.algorithm",
    "ssl.key.location",
    "ssl.key.password",
)
FILE: Final = ".file"
_LOGGER: Final = logging.getLogger("librdkafka")


class KafkaSettings(NamedTuple):
    """The topic and librdkafka's settings, with their secrets."""

    topic: str
    client: dict[str, Any]
    weak: bool

    @classmethod
    def of(cls, url: InboxUrl) -> Self:
        """Return the settings of the configured URL; raises InboxUnavailable if a file that it names can't be read."""
        parts = urlsplit(url.text)
        user, _, hosts = parts.netloc.rpartition("@")
        client: dict[str, Any] = {"bootstrap.servers": hosts, "client.id": "whatsapp-webhook", "log_level": 0}
        if user:
            name, _, password = user.partition(":")
            client |= {"sasl.username": unquote(name), "sasl.password": unquote(password)}
        for key, value in _parameters(url):
            client[key.removesuffix(FILE)] = _content(value) if key.endswith(FILE) else value
        if "sasl.username" in client:
            client.setdefault("sasl.mechanism", "SCRAM-SHA-512")
            client.setdefault("security.protocol", "SASL_SSL")
        return cls(parts.path.strip("/"), client, url.weak)


def problems(url: InboxUrl) -> list[str]:
    """Return the problems of the URL; see `Engine`."""
    problems = []
    topic = urlsplit(url.text).path.strip("/")
    if not topic or "/" in topic:
        problems.append("requires a topic: kafka://broker:9092/topic")
    names = {key for key, _ in _parameters(url)}
    unknown = sorted(name for name in names if name.removesuffix(FILE) not in KNOWN_OPTIONS)
    if unknown:
        problems.append(f"has unknown parameters ({', '.join(unknown)}); known are {', '.join(KNOWN_OPTIONS)}")
    return problems


def _parameters(url: InboxUrl) -> list[tuple[str, str]]:
    pairs = parse_qsl(urlsplit(url.text).query, keep_blank_values=True)
    return [(key, value) for key, value in pairs if key != "durability"]


def _content(path: str) -> str:
    try:
        return Path(path).read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError) as ex:
        raise InboxUnavailable(
            StorageFailure.DENIED,
            f"the file {path} of a parameter in WEBHOOK_INBOX can't be read: check that it is mounted and readable",
            reopen=True,
        ) from ex


def silent_logging() -> dict[str, Any]:
    """Return settings that turn off librdkafka's log, which has a line for each connection attempt."""
    _LOGGER.setLevel(logging.CRITICAL + 1)
    return {"logger": _LOGGER}
