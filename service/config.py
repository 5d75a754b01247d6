"""The configuration: `WEBHOOK_*` environment variables, checked at once.

`SETTINGS` is the one table: the config class, `check`, `serve --help` and the README follow it.
"""

import difflib
import re
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple
from urllib.parse import parse_qsl, urlsplit

from service.errors import ConfigurationError

PREFIX = "WEBHOOK_"
ENGINES = ("sqlite", "memory")

LAST_PORT = 65535
_SECONDS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
# What Kubernetes injects into every pod of a namespace that has a Service called `webhook` or `webhook-...`.
_INJECTED = re.compile(r"(_SERVICE_HOST|_SERVICE_PORT(_[A-Z0-9_]+)?|_PORT_\d+_(TCP|UDP|SCTP)(_(PROTO|PORT|ADDR))?)$")


class Address(NamedTuple):
    """Where a listener binds."""

    host: str
    port: int

    def __str__(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{host}:{self.port}"


class InboxUrl(NamedTuple):
    """Which engine keeps the events, and where."""

    engine: str
    path: Path
    weak: bool


@dataclass(frozen=True, slots=True)
class Config:
    """What the environment says, parsed; durations are seconds, sizes are bytes."""

    bind: Address
    admin_bind: Address
    path: str
    credentials_dir: Path
    credentials_hint: str
    relay_bind: Address
    run_dir: Path
    inbox: InboxUrl
    fields: frozenset[str]
    max_body_bytes: int
    read_timeout: float
    accept_timeout: float
    workers: int
    connections: int
    bodies_bytes: int
    retention: float
    body_retention: float
    destinations: str
    log_level: str
    log_format: str


@dataclass(frozen=True, slots=True)
class Setting:
    """One variable: its name, its default as it would be written, how it is read, what it means."""

    name: str
    default: str
    parse: Callable[[str], object]
    meaning: str


def address(text: str) -> Address:
    """Read `host:port`, an IPv6 host in brackets."""
    host, colon, port = text.rpartition(":")
    host = host.strip("[]")
    if not colon or not host or not _is_number(port) or not 0 < int(port) <= LAST_PORT:
        raise ValueError("wants host:port, such as 0.0.0.0:8080")
    return Address(host, int(port))


def duration(text: str) -> float:
    """Read a duration such as `500ms`, `10s`, `15m`, `36h` or `8d` into seconds."""
    found = re.fullmatch(r"([0-9]+(?:\.[0-9]+)?)(ms|s|m|h|d)", text)
    if not found or not float(found[1]):
        raise ValueError("wants a duration above zero with its unit: ms, s, m, h or d, such as 10s")
    return float(found[1]) * _SECONDS[found[2]]


def count(text: str) -> int:
    """Read a whole number above zero."""
    if not _is_number(text) or int(text) < 1:
        raise ValueError("wants a whole number above zero")
    return int(text)


def url_path(text: str) -> str:
    """Read the path of the webhook."""
    if not re.fullmatch(r"/[A-Za-z0-9._~/-]*", text):
        raise ValueError("wants a path that begins with / and holds letters, digits and . _ ~ - / only")
    return text


def inbox_url(text: str) -> InboxUrl:
    """Read where the events are kept: `sqlite:///path/inbox.db`, or `memory://?durability=weak`."""
    url = urlsplit(text)
    if url.scheme not in ENGINES:
        raise ValueError(f"knows the engines {' and '.join(ENGINES)} only, such as sqlite:///var/lib/inbox.db")
    query = dict(parse_qsl(url.query, keep_blank_values=True))
    weak = query.pop("durability", "") == "weak"
    if query:
        raise ValueError(
            f"has a parameter that it does not know ({', '.join(sorted(query))}); it knows durability=weak"
        )
    if url.netloc:
        raise ValueError(f"wants three slashes ({url.scheme}:///path): the engine has no host")
    if url.scheme == "memory" and not weak:
        raise ValueError("keeps nothing over a restart: say memory://?durability=weak where that is wanted")
    if url.scheme == "sqlite" and (len(url.path) <= 1 or url.path.endswith("/")):
        raise ValueError("wants the path of a file, such as sqlite:///var/lib/whatsapp-webhook/inbox.db")
    if url.scheme == "sqlite" and weak:
        raise ValueError("is always durable with SQLite: drop ?durability=weak")
    return InboxUrl(url.scheme, Path(url.path), weak)


def names(text: str) -> frozenset[str]:
    """Read names with commas between them; empty is all."""
    return frozenset(name.strip() for name in text.split(",") if name.strip())


def one_of(*choices: str) -> Callable[[str], str]:
    """Make a parser for a closed set of words."""

    def parse(text: str) -> str:
        if text not in choices:
            raise ValueError(f"wants one of {', '.join(choices)}")
        return text

    return parse


SETTINGS = (
    Setting("WEBHOOK_BIND", "0.0.0.0:8080", address, "Where the public listener binds."),
    Setting("WEBHOOK_ADMIN_BIND", "0.0.0.0:9090", address, "Where probes and metrics are served. Never expose it."),
    Setting("WEBHOOK_PATH", "/webhooks", url_path, "The one path of the public listener."),
    Setting(
        "WEBHOOK_CREDENTIALS_DIR",
        "/etc/whatsapp-webhook/credentials",
        Path,
        "The directory with `verify-token`, `app-secret` and, if you like, `log-key`.",
    ),
    Setting(
        "WEBHOOK_CREDENTIALS_HINT",
        "",
        str,
        "A sentence that `/readyz` and the log add while credentials are missing: where to put them.",
    ),
    Setting("WEBHOOK_RELAY_BIND", "0.0.0.0:9091", address, "Reserved for the relay's probes and metrics."),
    Setting(
        "WEBHOOK_RUN_DIR",
        "/run/whatsapp-webhook",
        Path,
        "A directory in memory: heartbeat, drain mark, metrics of several workers.",
    ),
    Setting(
        "WEBHOOK_INBOX",
        "sqlite:///var/lib/whatsapp-webhook/inbox.db",
        inbox_url,
        "Where events are kept. `WEBHOOK_INBOX_FILE` names a file that holds this value instead.",
    ),
    Setting("WEBHOOK_FIELDS", "", names, "Which of Meta's fields to keep, with commas between; empty keeps all."),
    Setting("WEBHOOK_MAX_BODY_BYTES", "4194304", count, "A larger body is answered 413. Meta sends up to 3 MB."),
    Setting("WEBHOOK_READ_TIMEOUT", "10s", duration, "How long a request may take to arrive, in all."),
    Setting("WEBHOOK_ACCEPT_TIMEOUT", "2s", duration, "How long the inbox may take before the answer is 503."),
    Setting("WEBHOOK_WORKERS", "1", count, "Worker processes. SQLite serves one."),
    Setting("WEBHOOK_CONNECTIONS", "4096", count, "Connections a worker holds at once."),
    Setting("WEBHOOK_BODIES_BYTES", "134217728", count, "Bytes of bodies in flight, a worker; above it 503."),
    Setting("WEBHOOK_RETENTION", "8d", duration, "How long an event's id is remembered, so that a repeat is told."),
    Setting("WEBHOOK_BODY_RETENTION", "8d", duration, "How long an event's data is kept; at most the retention."),
    Setting("WEBHOOK_DESTINATIONS", "", str, "Reserved for the relay: the path of its destinations file."),
    Setting(
        "WEBHOOK_LOG_LEVEL", "info", one_of("debug", "info", "warning", "error"), "The least level that is logged."
    ),
    Setting(
        "WEBHOOK_LOG_FORMAT",
        "",
        one_of("", "json", "console"),
        "`json` or `console`; empty is `console` on a terminal, else `json`.",
    ),
)
INBOX_FILE = "WEBHOOK_INBOX_FILE"


def load(environ: Mapping[str, str], *, known_fields: Collection[str]) -> Config:
    """Read the configuration from *environ*; a variable that is set but empty has its default.

    *known_fields* are Meta's names of webhook fields: a name close to one of them is a misspelling.
    Raises ConfigurationError with every problem at once.
    """
    problems: list[str] = []
    values: dict[str, object] = {}
    texts = dict(environ)
    if texts.get(INBOX_FILE):
        _read_inbox_file(texts, problems)
    for setting in SETTINGS:
        text = texts.get(setting.name) or setting.default
        try:
            values[setting.name.removeprefix(PREFIX).lower()] = setting.parse(text)
        except ValueError as ex:
            shown = "" if setting.name == "WEBHOOK_INBOX" else f" (it is {text!r})"
            problems.append(f"{setting.name} {ex}{shown}.")
    problems += _unknown(texts)
    if not problems:
        config = Config(**values)  # type: ignore[arg-type]  # the parsers of SETTINGS give the field's types
        problems += _contradictions(config) + _misspelt_fields(config.fields, known_fields)
    if problems:
        raise ConfigurationError(problems)
    return config


def _read_inbox_file(texts: dict[str, str], problems: list[str]) -> None:
    if texts.get("WEBHOOK_INBOX"):
        problems.append(f"WEBHOOK_INBOX and {INBOX_FILE} are both set: drop one of them.")
    try:
        texts["WEBHOOK_INBOX"] = Path(texts[INBOX_FILE]).read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError) as ex:
        why = ex.strerror if isinstance(ex, OSError) else "it is not UTF-8 text"
        problems.append(f"{INBOX_FILE} names {texts[INBOX_FILE]!r}, which can't be read: {why}.")


def _unknown(environ: Mapping[str, str]) -> list[str]:
    known = [setting.name for setting in SETTINGS] + [INBOX_FILE]
    problems = []
    for name in sorted(environ):
        if not name.startswith(PREFIX) or name in known or _is_injected(name, environ[name]):
            continue
        close = difflib.get_close_matches(name, known, n=1, cutoff=0.6)
        meant = f"did you mean {close[0]}?" if close else "see the table in the README for those there are."
        problems.append(f"{name} is not a setting: {meant}")
    return problems


def _is_injected(name: str, value: str) -> bool:
    return bool(_INJECTED.search(name)) or (name.endswith("_PORT") and "://" in value)


def _contradictions(config: Config) -> list[str]:
    problems = []
    if config.bind.port == config.admin_bind.port:
        problems.append("WEBHOOK_BIND and WEBHOOK_ADMIN_BIND have the same port: give them one each.")
    if config.body_retention > config.retention:
        problems.append("WEBHOOK_BODY_RETENTION is longer than WEBHOOK_RETENTION: make it at most as long.")
    if config.inbox.engine == "sqlite" and config.workers > 1:
        problems.append("WEBHOOK_WORKERS is above 1, and SQLite serves one worker of one pod: set it to 1.")
    if config.bodies_bytes < config.max_body_bytes:
        problems.append("WEBHOOK_BODIES_BYTES is below WEBHOOK_MAX_BODY_BYTES: one body would never fit.")
    return problems


def _misspelt_fields(chosen: Collection[str], known: Collection[str]) -> list[str]:
    problems = []
    for name in sorted(set(chosen) - set(known)):
        close = difflib.get_close_matches(name, known, n=1, cutoff=0.75)
        if close:
            problems.append(f"WEBHOOK_FIELDS names {name!r}, which Meta does not have: did you mean {close[0]!r}?")
    return problems


def _is_number(text: str) -> bool:
    return text.isascii() and text.isdigit()
