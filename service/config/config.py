"""Parse the environment into the configuration, and report every problem together."""

import difflib
import re
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from service.config.parsers import Address, InboxUrl
from service.config.settings import INBOX_FILE, SECRETS, SETTINGS, VARIABLE_PREFIX
from service.errors import ConfigurationError

MAX_QUOTED_CHARACTERS: Final = 80  # of an invalid value in an error message
# Variables that Kubernetes injects into every pod of a namespace that has a Service called `webhook` or `webhook-...`.
_INJECTED = re.compile(r"(_SERVICE_HOST|_SERVICE_PORT(_[A-Z0-9_]+)?|_PORT_\d+_(TCP|UDP|SCTP)(_(PROTO|PORT|ADDR))?)$")


@dataclass(frozen=True, slots=True)
class Config:
    """The parsed configuration; durations are in seconds, sizes in bytes."""

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
    keepalive_timeout: float
    max_header_bytes: int
    health_path: str
    workers: int
    connections: int
    inflight_bytes: int
    retention: float
    body_retention: float
    destinations: str
    callback_url: str
    app_id: str
    accounts: tuple[str, ...]
    graph_url: str
    graph_version: str
    log_level: str
    log_format: str


def load(
    environ: Mapping[str, str],
    *,
    known_fields: Collection[str],
    inbox_problems: Callable[[InboxUrl, int], Sequence[str]],
) -> Config:
    """Read the configuration from *environ*; a variable that is set but empty has its default.

    *known_fields* are Meta's names of webhook fields: a name close to one of them is a misspelling. *inbox_problems*
    returns the problems of an inbox URL for a number of workers, in whole sentences.
    Raises ConfigurationError with all problems.
    """
    problems: list[str] = []
    values: dict[str, Any] = {}
    texts = dict(environ)
    if texts.get(INBOX_FILE):
        _read_inbox_file(texts, problems)
    for setting in SETTINGS:
        text = texts.get(setting.name) or setting.default
        try:
            values[setting.name.removeprefix(VARIABLE_PREFIX).lower()] = setting.parse(text)
        except ValueError as ex:
            is_secret = setting.name == "WEBHOOK_INBOX" or "@" in text
            quoted = "" if is_secret else f" (got {text[:MAX_QUOTED_CHARACTERS]!r})"
            problems.append(f"{setting.name} {ex}{quoted}.")
    problems += _unknown(texts) + _contradictions(values)
    if "inbox" in values:
        problems += inbox_problems(values["inbox"], values.get("workers", 1))
    if "fields" in values:
        problems += [
            f"WEBHOOK_FIELDS contains {name!r}, which is not one of Meta's webhook fields: did you mean {close!r}?"
            for name, close in misspelt(values["fields"], known_fields).items()
        ]
    if problems:
        raise ConfigurationError(problems)
    if texts.get(INBOX_FILE):
        values["inbox"] = values["inbox"]._replace(file=Path(texts[INBOX_FILE]))
    return Config(**values)


def _read_inbox_file(texts: dict[str, str], problems: list[str]) -> None:
    if texts.get("WEBHOOK_INBOX"):
        problems.append(f"WEBHOOK_INBOX and {INBOX_FILE} are both set: remove one of them.")
    try:
        texts["WEBHOOK_INBOX"] = Path(texts[INBOX_FILE]).read_text(encoding="utf-8-sig").strip()
    except (OSError, UnicodeDecodeError) as ex:
        why = ex.strerror if isinstance(ex, OSError) else "it is not UTF-8 text"
        problems.append(f"{INBOX_FILE} names {texts[INBOX_FILE]!r}, which can't be read: {why}.")


def _unknown(environ: Mapping[str, str]) -> list[str]:
    known = [setting.name for setting in SETTINGS] + [INBOX_FILE]
    problems = []
    for name in sorted(environ):
        if not name.startswith(VARIABLE_PREFIX) or name in known or _is_injected(name, environ[name]):
            continue
        if name in SECRETS:
            problems.append(
                f"{name} is only for commands that call the Graph API: a server reads the file {SECRETS[name]} in "
                "WEBHOOK_CREDENTIALS_DIR."
            )
            continue
        close = difflib.get_close_matches(name, known, n=1, cutoff=0.6)
        hint = f"did you mean {close[0]}?" if close else "docs/configuration.md lists all settings."
        shown = name if name.isprintable() else ascii(name)
        problems.append(f"{shown} is not a setting: {hint}")
    return problems


def _is_injected(name: str, value: str) -> bool:
    return bool(_INJECTED.search(name)) or (name.endswith("_PORT") and "://" in value)


_CONTRADICTIONS: Final[tuple[tuple[tuple[str, str], Callable[[Any, Any], bool], str], ...]] = (
    (
        ("bind", "admin_bind"),
        lambda bind, admin: bind.port == admin.port,
        "WEBHOOK_BIND and WEBHOOK_ADMIN_BIND have the same port: use different ports.",
    ),
    (
        ("path", "health_path"),
        lambda path, health: path == health,
        "WEBHOOK_HEALTH_PATH is the same as WEBHOOK_PATH: use a different path for the health check.",
    ),
    (
        ("body_retention", "retention"),
        lambda body_retention, id_retention: body_retention > id_retention,
        "WEBHOOK_BODY_RETENTION is longer than WEBHOOK_RETENTION: make it at most as long.",
    ),
    (
        ("inflight_bytes", "max_body_bytes"),
        lambda inflight, body: inflight < body,
        "WEBHOOK_INFLIGHT_BYTES is less than WEBHOOK_MAX_BODY_BYTES: the largest body would never fit.",
    ),
)


def _contradictions(values: Mapping[str, Any]) -> list[str]:
    """Return the contradictions between the values that could be parsed."""
    return [
        problem
        for (first, second), contradict, problem in _CONTRADICTIONS
        if first in values and second in values and contradict(values[first], values[second])
    ]


def misspelt(names: Collection[str], known: Collection[str]) -> dict[str, str]:
    """Map each of *names* that is not in *known*, but close to a known name, to that name."""
    unknown = sorted(set(names) - set(known))
    close = {name: difflib.get_close_matches(name, known, n=1, cutoff=0.75) for name in unknown}
    return {name: matches[0] for name, matches in close.items() if matches}
