"""Parse the URL into the client's settings."""

import re
import ssl
from typing import Any, Final, NamedTuple, Self
from urllib.parse import parse_qsl, unquote, urlsplit

from service.config import InboxUrl
from service.errors import InboxUnavailable
from service.outcomes import StorageFailure

# Parameters of the URL; the first five have the names of the `nats` tool's options.
KNOWN_OPTIONS: Final = ("creds", "nkey", "tlsca", "tlscert", "tlskey", "tls", "subject", "replicas", "monitor")
_SUBJECT: Final = re.compile(r"[A-Za-z0-9_-]+(\.[A-Za-z0-9_-]+)*")
_FORBIDDEN_IN_NAMES: Final = frozenset(" .*>/\\")


class NatsSettings(NamedTuple):
    """The stream, its servers, and how to create it if it does not exist."""

    stream: str
    subject: str
    servers: tuple[str, ...]
    user: str  # user:password, or a token
    options: dict[str, str]
    weak: bool

    @classmethod
    def of(cls, url: InboxUrl) -> Self:
        """Return the settings of the configured URL."""
        parts = urlsplit(url.text)
        user, _, hosts = parts.netloc.rpartition("@")
        name = parts.path.strip("/")
        options = dict(_parameters(url))
        servers = tuple(f"nats://{host}" for host in hosts.split(","))
        return cls(name, options.get("subject", name.lower()), servers, unquote(user), options, url.weak)

    def replicas(self, *, clustered: bool) -> int:
        """Return the number of replicas for a new stream."""
        return int(self.options.get("replicas", 3 if clustered else 1))

    def client(self) -> dict[str, Any]:
        """Return the client's arguments; raises InboxUnavailable if a file of the TLS parameters can't be read."""
        arguments: dict[str, Any] = {
            "servers": list(self.servers),
            "name": "whatsapp-webhook",
            "allow_reconnect": False,
        }
        name, colon, password = self.user.partition(":")
        if colon:
            arguments |= {"user": name, "password": password}
        elif name:
            arguments["token"] = name
        if "creds" in self.options:
            arguments["user_credentials"] = self.options["creds"]
        if "nkey" in self.options:
            arguments["nkeys_seed"] = self.options["nkey"]
        if {"tls", "tlsca", "tlscert"} & set(self.options):
            try:
                context = ssl.create_default_context(cafile=self.options.get("tlsca"))
                if "tlscert" in self.options:
                    context.load_cert_chain(self.options["tlscert"], self.options.get("tlskey"))
            except OSError as ex:
                raise InboxUnavailable(
                    StorageFailure.TLS,
                    f"a file of tlsca, tlscert or tlskey in WEBHOOK_INBOX can't be used ({ex.strerror})",
                ) from ex
            arguments["tls"] = context
        return arguments


def problems(url: InboxUrl) -> list[str]:
    """Return the problems of the URL; see `Engine`."""
    problems = []
    name = urlsplit(url.text).path.strip("/")
    if not name or _FORBIDDEN_IN_NAMES & set(name):
        problems.append("requires a stream: nats://server:4222/STREAM")
    options = dict(_parameters(url))
    unknown = sorted(set(options) - set(KNOWN_OPTIONS))
    if unknown:
        problems.append(f"has unknown parameters ({', '.join(unknown)}); known are {', '.join(KNOWN_OPTIONS)}")
    if not _SUBJECT.fullmatch(options.get("subject", "whatsapp")):
        problems.append("requires a subject of words separated by dots: subject=whatsapp.events")
    if options.get("replicas", "1") not in tuple("12345"):
        problems.append("requires replicas from 1 to 5")
    return problems


def _parameters(url: InboxUrl) -> list[tuple[str, str]]:
    pairs = parse_qsl(urlsplit(url.text).query, keep_blank_values=True)
    return [(key, value) for key, value in pairs if key != "durability"]
