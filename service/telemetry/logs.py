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
from datetime import UTC, datetime
from types import TracebackType
from typing import Any, Final, TextIO

import structlog
from structlog.stdlib import ProcessorFormatter

from service.clock import Clock, now_ms

LOGGER: Final = "whatsapp_webhook"
ALLOWED_KEYS: Final = frozenset(
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
        "duplicates",
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
MAX_VALUE_CHARACTERS: Final = 500
FLOOD_SECONDS: Final = 10.0
REPEAT_INTERVAL_MS: Final = 600_000  # between lines about a trouble that lasts
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
    _log_what_nobody_caught()
    root.setLevel(logging.WARNING)
    for name, other in _OTHERS.items():
        logging.getLogger(name).setLevel(other)
    logging.getLogger(LOGGER).setLevel(level.upper())
    structlog.configure(
        processors=[structlog.stdlib.filter_by_level, *_stamps(), ProcessorFormatter.wrap_for_formatter],
        logger_factory=structlog.stdlib.LoggerFactory(),
        wrapper_class=structlog.stdlib.BoundLogger,
        cache_logger_on_first_use=True,
    )


def _log_what_nobody_caught() -> None:
    """Log exceptions that end a thread or the process like everything else, not as a raw traceback."""
    log = get("server")

    def of_thread(args: threading.ExceptHookArgs) -> None:
        if args.exc_value is not None:
            log.error("thread failed", exc_info=args.exc_value)

    def of_process(kind: type[BaseException], raised: BaseException, trace: TracebackType | None) -> None:
        if issubclass(kind, Exception):
            log.error("process failed", exc_info=raised)
        else:
            sys.__excepthook__(kind, raised, trace)

    threading.excepthook = of_thread
    sys.excepthook = of_process
    sys.unraisablehook = lambda args: log.error("clean-up failed", exc_info=args.exc_value)


def get(name: str) -> structlog.stdlib.BoundLogger:
    """Give the logger of a part of the house."""
    logger: structlog.stdlib.BoundLogger = structlog.stdlib.get_logger(f"{LOGGER}.{name}")
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


class LastingTrouble:
    """Logs a trouble that lasts: when it begins or changes, then every ten minutes with `since`, until it is over.

    So the last hour of the log shows it.
    """

    def __init__(self, log: Any, *, now_ms: Clock = now_ms) -> None:
        """*log* is a logger."""
        self._log = log
        self._now_ms = now_ms
        self._lock = threading.Lock()
        self._key: object = None
        self._since = 0
        self._told = 0

    def tell(self, event: str, *, level: str = "error", key: object = None, **details: object) -> None:
        """Log *event*, unless the same was logged within ten minutes; *key* says what is the same, else its details."""
        now = self._now_ms()
        same = (event, key if key is not None else repr(details))
        with self._lock:
            is_new = same != self._key
            if not is_new and 0 <= now - self._told < REPEAT_INTERVAL_MS:
                return
            if is_new:
                self._key, self._since = same, now
            self._told = now
            since = (
                {}
                if is_new
                else {"since": datetime.fromtimestamp(self._since / 1000, UTC).isoformat(timespec="seconds")}
            )
        getattr(self._log, level)(event, **details, **since)

    def over(self) -> bool:
        """Note that there is no trouble any more; return whether there was one."""
        with self._lock:
            was, self._key = self._key is not None, None
        return was


class Floods:
    """Writes the first of a kind at once, and of the rest how many there were, every ten seconds."""

    def __init__(self, log: Any, *, now: Callable[[], float] = time.monotonic) -> None:
        """*log* is a logger; *now* is in seconds."""
        self._log = log
        self._now = now
        self._lock = threading.Lock()
        self._since: dict[tuple[str, str, str], float] = {}
        self._held: dict[tuple[str, str, str], int] = {}

    def add(self, event: str, reason: str, *, level: str = "warning", **more: str) -> None:
        """Log *event* for *reason*, now, with what *more* there is to say, or in the next sum."""
        key = (event, reason, level)
        with self._lock:
            first = key not in self._since
            if first:
                self._since[key] = self._now()
                self._held[key] = 0
            else:
                self._held[key] += 1
        if first:
            getattr(self._log, level)(event, reason=reason, count=1, **more)

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
        for (event, reason, level), held in due:
            getattr(self._log, level)(event, reason=reason, count=held, seconds=FLOOD_SECONDS)


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
    names = [*LEADING, *(name for name in entry if name in ALLOWED_KEYS and name not in LEADING)]
    return {name: _bounded(entry[name]) for name in names if name in entry}


def _bounded(value: object) -> object:
    return value[:MAX_VALUE_CHARACTERS] if isinstance(value, str) else value
