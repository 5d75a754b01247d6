"""Logs: one JSON object a line, of keys that are allowed and nothing else.

What belongs to people (numbers, message ids) is logged as a keyed hash; text, names and tokens never. Lines of
other libraries take the same form. Source of the idea: OWASP's Logging Cheat Sheet, "Data to exclude".
"""

import hashlib
import hmac
import logging
import re
import secrets
import sys
import threading
import time
import traceback
from collections.abc import Callable, MutableMapping
from typing import Any, Final, TextIO

import structlog
from structlog.stdlib import ProcessorFormatter

PREFIX: Final = "whatsapp_webhook"
ALLOWED: Final = frozenset(
    {
        "action",
        "app_secrets",
        "bytes",
        "connections",
        "count",
        "credential",
        "destination",
        "detail",
        "engine",
        "error",
        "event",
        "events",
        "exception",
        "fields",
        "hint",
        "ids",
        "inbox",
        "level",
        "logger",
        "log_level",
        "new",
        "outcome",
        "path",
        "pid",
        "position",
        "problems",
        "reason",
        "repeats",
        "seconds",
        "signal",
        "since",
        "span_id",
        "state",
        "status",
        "subject",
        "timestamp",
        "trace_id",
        "tracing",
        "types",
        "url",
        "verify_tokens",
        "version",
        "worker",
        "workers",
    }
)
LEADING: Final = ("timestamp", "level", "event", "logger")
LONGEST: Final = 500
FLOOD_SECONDS: Final = 10.0
# What other libraries write is not ours to allow key by key: what looks like a number or a token is taken out.
_SECRET: Final = re.compile(r"hub\.[a-z_]+=[^\s&\"']*|\+?[0-9]{8,}")
# urllib3 quotes what a destination answered, and the URL with its query.
_OTHERS: Final = {"gunicorn": logging.INFO, "urllib3": logging.CRITICAL}


def configure(*, level: str, form: str, stream: TextIO) -> None:
    """Send every log of the process to *stream*: ours from *level*, others' that are worth it.

    *form* is `json` or `console`; empty is `console` on a terminal.
    """
    console = form == "console" or (not form and stream.isatty())
    renderer = structlog.dev.ConsoleRenderer() if console else structlog.processors.JSONRenderer()
    handler = logging.StreamHandler(stream)
    handler.setFormatter(
        ProcessorFormatter(
            foreign_pre_chain=[_scrub, *_stamps()],
            processors=[_short_exception, ProcessorFormatter.remove_processors_meta, _allow, renderer],
        )
    )
    root = logging.getLogger()
    root.handlers = [handler]
    root.setLevel(logging.WARNING)
    for name, other in _OTHERS.items():
        logging.getLogger(name).setLevel(other)
    logging.getLogger(PREFIX).setLevel(level.upper())
    structlog.configure(
        processors=[structlog.stdlib.filter_by_level, *_stamps(), ProcessorFormatter.wrap_for_formatter],
        logger_factory=structlog.stdlib.LoggerFactory(),
        wrapper_class=structlog.stdlib.BoundLogger,
        cache_logger_on_first_use=True,
    )


def get(name: str) -> structlog.stdlib.BoundLogger:
    """Give the logger of a part of the house."""
    logger: structlog.stdlib.BoundLogger = structlog.stdlib.get_logger(f"{PREFIX}.{name}")
    return logger


class Pseudonyms:
    """Keyed hashes that stand for people in the log: alike for the same person, of no use without the key."""

    def __init__(self, key: bytes | None = None) -> None:
        """Start with *key*, or with a random one."""
        self.use(key)

    def use(self, key: bytes | None) -> None:
        """Take another key from now on."""
        self._key = key or secrets.token_bytes(32)

    def __call__(self, value: str) -> str:
        """Give the hash that stands for *value*."""
        return hmac.new(self._key, value.encode(), hashlib.sha256).hexdigest()[:12]


class Floods:
    """Writes the first of a kind at once, and of the rest how many there were, every ten seconds."""

    def __init__(self, write: Callable[..., object], *, now: Callable[[], float] = time.monotonic) -> None:
        """*write* is a logger's method; *now* is in seconds."""
        self._write = write
        self._now = now
        self._lock = threading.Lock()
        self._since: dict[tuple[str, str], float] = {}
        self._held: dict[tuple[str, str], int] = {}

    def add(self, event: str, reason: str, **more: str) -> None:
        """Log *event* for *reason*, now, with what *more* there is to say, or in the next sum."""
        key = (event, reason)
        with self._lock:
            first = key not in self._since
            if first:
                self._since[key] = self._now()
                self._held[key] = 0
            else:
                self._held[key] += 1
        if first:
            self._write(event, reason=reason, count=1, **more)

    def flush(self, *, force: bool = False) -> None:
        """Log the sums that are due; call it about once a second, and with *force* before the end."""
        due = []
        with self._lock:
            for key, since in list(self._since.items()):
                if force or self._now() - since >= FLOOD_SECONDS:
                    held = self._held.pop(key)
                    del self._since[key]
                    if held:
                        due.append((key, held))
                        self._since[key], self._held[key] = self._now(), 0
        for (event, reason), held in due:
            self._write(event, reason=reason, count=held, seconds=FLOOD_SECONDS)


def _stamps() -> list[Any]:
    return [
        structlog.stdlib.add_log_level,
        structlog.stdlib.add_logger_name,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
    ]


def _scrub(_logger: object, _name: str, entry: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    entry["event"] = _SECRET.sub("[removed]", str(entry["event"]))
    return entry


def _short_exception(_logger: object, _name: str, entry: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    """Say where an exception came from, without its message: that may hold what was sent."""
    given = entry.pop("exc_info", None)
    raised = given[1] if isinstance(given, tuple) else given
    if raised is True:
        raised = sys.exc_info()[1]
    if isinstance(raised, BaseException):
        frames = traceback.extract_tb(raised.__traceback__)[-8:]
        entry["error"] = type(raised).__name__
        entry["exception"] = [f"{frame.filename}:{frame.lineno} {frame.name}" for frame in frames]
    entry.pop("stack_info", None)
    return entry


def _allow(_logger: object, _name: str, entry: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    names = [*LEADING, *(name for name in entry if name in ALLOWED and name not in LEADING)]
    return {name: _bounded(entry[name]) for name in names if name in entry}


def _bounded(value: object) -> object:
    return value[:LONGEST] if isinstance(value, str) else value
