"""The URL, as the client wants it."""

import re
import ssl
from typing import Any, Final, NamedTuple, Self
from urllib.parse import parse_qsl, unquote, urlsplit

from service.config import InboxUrl
from service.errors import InboxUnavailable
from service.outcomes import StorageFailure

# What the URL may say besides; the first five are called as the `nats` tool's options are.
KNOWN_OPTIONS: Final = ("creds", "nkey", "tlsca", "tlscert", "tlskey", "tls", "subject", "replicas", "monitor")
_SUBJECT: Final = re.compile(r"[A-Za-z0-9_-]+(\.[A-Za-z0-9_-]+)*")
_NOT_A_NAME: Final = frozenset(" .*>/\\")


class NatsSettings(NamedTuple):
    """Which stream, of which servers, and how it is to be made where there is none."""

    stream: str
    subject: str
    servers: tuple[str, ...]
    user: str  # with a colon and the password, or a token
    options: dict[str, str]
    weak: bool

    @classmethod
    def of(cls, url: InboxUrl) -> Self:
        """Take them from the configured URL."""
        parts = urlsplit(url.text)
        user, _, hosts = parts.netloc.rpartition("@")
        name = parts.path.strip("/")
        options = dict(_parameters(url))
        servers = tuple(f"nats://{host}" for host in hosts.split(","))
        return cls(name, options.get("subject", name.lower()), servers, unquote(user), options, url.weak)

    def replicas(self, *, clustered: bool) -> int:
        """Say how many replicas a stream that is made gets."""
        return int(self.options.get("replicas", 3 if clustered else 1))

    def client(self) -> dict[str, Any]:
        """Give the client's arguments; raises InboxUnavailable where a file that is named can't be read."""
        found: dict[str, Any] = {"servers": list(self.servers), "name": "whatsapp-webhook", "allow_reconnect": False}
        name, colon, password = self.user.partition(":")
        if colon:
            found |= {"user": name, "password": password}
        elif name:
            found["token"] = name
        if "creds" in self.options:
            found["user_credentials"] = self.options["creds"]
        if "nkey" in self.options:
            found["nkeys_seed"] = self.options["nkey"]
        if {"tls", "tlsca", "tlscert"} & set(self.options):
            try:
                context = ssl.create_default_context(cafile=self.options.get("tlsca"))
                if "tlscert" in self.options:
                    context.load_cert_chain(self.options["tlscert"], self.options.get("tlskey"))
            except OSError as ex:
                raise InboxUnavailable(
                    StorageFailure.TLS, f"a file of WEBHOOK_INBOX's tls options can't be used ({ex.strerror})"
                ) from ex
            found["tls"] = context
        return found


def problems(url: InboxUrl) -> list[str]:
    """Say what is wrong with the URL; see `Engine`."""
    found = []
    name = urlsplit(url.text).path.strip("/")
    if not name or _NOT_A_NAME & set(name):
        found.append("wants a stream: nats://server:4222/STREAM")
    options = dict(_parameters(url))
    unknown = sorted(set(options) - set(KNOWN_OPTIONS))
    if unknown:
        found.append(
            f"has parameters that it does not know ({', '.join(unknown)}); it knows {', '.join(KNOWN_OPTIONS)}"
        )
    if not _SUBJECT.fullmatch(options.get("subject", "whatsapp")):
        found.append("wants a subject of words with dots between: subject=whatsapp.events")
    if options.get("replicas", "1") not in tuple("12345"):
        found.append("wants replicas from 1 to 5")
    return found


def _parameters(url: InboxUrl) -> list[tuple[str, str]]:
    pairs = parse_qsl(urlsplit(url.text).query, keep_blank_values=True)
    return [(key, value) for key, value in pairs if key != "durability"]
