"""The URL, as librdkafka wants it."""

import logging
from pathlib import Path
from typing import Any, Final, NamedTuple, Self
from urllib.parse import parse_qsl, unquote, urlsplit

from service.config import InboxUrl
from service.errors import InboxUnavailable
from service.outcomes import StorageFailure

# librdkafka's own names (its CONFIGURATION.md); with `.file` behind, the value is read from a mounted file.
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
_QUIET: Final = logging.getLogger("librdkafka")  # a line for each try to connect, while our log says it once


class KafkaSettings(NamedTuple):
    """Where the topic is, and what librdkafka is told; secrets and all."""

    topic: str
    client: dict[str, Any]
    weak: bool

    @classmethod
    def of(cls, url: InboxUrl) -> Self:
        """Take them from the configured URL; raises InboxUnavailable where a file that it names can't be read."""
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
    """Say what is wrong with the URL; see `Engine`."""
    found = []
    topic = urlsplit(url.text).path.strip("/")
    if not topic or "/" in topic:
        found.append("wants a topic: kafka://broker:9092/topic")
    names = {key for key, _ in _parameters(url)}
    unknown = sorted(name for name in names if name.removesuffix(FILE) not in KNOWN_OPTIONS)
    if unknown:
        found.append(
            f"has parameters that it does not know ({', '.join(unknown)}); it knows {', '.join(KNOWN_OPTIONS)}"
        )
    return found


def _parameters(url: InboxUrl) -> list[tuple[str, str]]:
    pairs = parse_qsl(urlsplit(url.text).query, keep_blank_values=True)
    return [(key, value) for key, value in pairs if key != "durability"]


def _content(path: str) -> str:
    try:
        return Path(path).read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError) as ex:
        raise InboxUnavailable(
            StorageFailure.DENIED, f"{path}, which WEBHOOK_INBOX names, can't be read", reopen=True
        ) from ex


def quiet() -> dict[str, Any]:
    """Give what keeps librdkafka from writing to the standard error."""
    _QUIET.setLevel(logging.CRITICAL + 1)
    return {"logger": _QUIET}
