"""Logs: one JSON object per line, with only the allowed keys.

Personal data that identifies a message (phone numbers, message ids) is logged as a keyed hash; text, names and tokens
are never logged. Log lines of libraries have the same format. Source: OWASP's Logging Cheat Sheet, "Data to exclude".
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
        "remedy",
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
SUMMARY_INTERVAL_SECONDS: Final = 10.0
REPEAT_INTERVAL_MS: Final = 600_000  # between log lines about a problem that persists
# Lines of libraries have no allowed keys: anything that looks like a phone number or a token is removed.
_SECRET: Final = re.compile(r"hub\.[a-z_]+=[^\s&\"']*|\+?[0-9]{8,}")
# urllib3 quotes destinations' responses, and URLs with their queries.
_LIBRARY_LEVELS: Final = {"gunicorn": logging.INFO, "urllib3": logging.CRITICAL}


def configure(*, level: str, form: str, stream: TextIO) -> None:
    """Send all logs of the process to *stream*.

    The service's own have the minimum level *level*, those of libraries `_LIBRARY_LEVELS` or `warning`.
    *form* is `json` or `console`; empty is `console` on a terminal, else `json`.
    """
    console = form == "console" or (not form and stream.isatty())
    renderer = structlog.dev.ConsoleRenderer() if console else structlog.processors.JSONRenderer()
    handler = logging.StreamHandler(stream)
    handler.setFormatter(
        ProcessorFormatter(
            foreign_pre_chain=[_scrub, *_standard_keys()],
            processors=[_short_exception, ProcessorFormatter.remove_processors_meta, _allow, renderer],
        )
    )
    root = logging.getLogger()
    root.handlers = [handler]
    _log_uncaught_exceptions()
    root.setLevel(logging.WARNING)
    for name, library_level in _LIBRARY_LEVELS.items():
        logging.getLogger(name).setLevel(library_level)
    logging.getLogger(LOGGER).setLevel(level.upper())
    structlog.configure(
        processors=[structlog.stdlib.filter_by_level, *_standard_keys(), ProcessorFormatter.wrap_for_formatter],
        logger_factory=structlog.stdlib.LoggerFactory(),
        wrapper_class=structlog.stdlib.BoundLogger,
        cache_logger_on_first_use=True,
    )


def _log_uncaught_exceptions() -> None:
    """Log uncaught exceptions in the same format, in place of a raw traceback."""
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
    sys.unraisablehook = lambda args: log.error("finalizer failed", exc_info=args.exc_value)


def get(name: str) -> structlog.stdlib.BoundLogger:
    """Return the logger of a part of the service."""
    logger: structlog.stdlib.BoundLogger = structlog.stdlib.get_logger(f"{LOGGER}.{name}")
    return logger


class KeyedHasher:
    """Hashes ids and phone numbers for the log: equal for equal values, useless without the key."""

    def __init__(self, key: bytes | None = None) -> None:
        """Use *key*, or a random one if it is None."""
        self.set_key(key)

    def set_key(self, key: bytes | None) -> None:
        """Use *key* from now on, or a random one if it is None."""
        self._key = key or secrets.token_bytes(32)

    def __call__(self, value: str) -> str:
        """Return the keyed hash of *value*."""
        return hmac.new(self._key, value.encode(), hashlib.sha256).hexdigest()[:12]


class ProblemLog:
    """Logs a persistent problem when it starts or changes, then every ten minutes with `since`, until it is over.

    So the last hour of the log always shows it.
    """

    def __init__(self, log: Any, *, now_ms: Clock = now_ms) -> None:
        """*log* is a logger."""
        self._log = log
        self._now_ms = now_ms
        self._lock = threading.Lock()
        self._key: object = None
        self._since_ms = 0
        self._logged_ms = 0

    def report(self, event: str, *, level: str = "error", key: object = None, **details: object) -> None:
        """Log *event*, unless the same problem was logged in the last ten minutes.

        Two problems are the same if *event* and *key* are equal; without *key*, if *event* and *details* are equal.
        """
        now = self._now_ms()
        identity = (event, key if key is not None else repr(details))
        with self._lock:
            is_new = identity != self._key
            if not is_new and 0 <= now - self._logged_ms < REPEAT_INTERVAL_MS:
                return
            if is_new:
                self._key, self._since_ms = identity, now
            self._logged_ms = now
            since = (
                {}
                if is_new
                else {"since": datetime.fromtimestamp(self._since_ms / 1000, UTC).isoformat(timespec="seconds")}
            )
        getattr(self._log, level)(event, **details, **since)

    def resolve(self) -> bool:
        """Record that the problem is over; return whether there was one."""
        with self._lock:
            had_problem, self._key = self._key is not None, None
        return had_problem


class RateLimitedLog:
    """Logs the first line of a kind immediately, then how many more there were, every ten seconds."""

    def __init__(self, log: Any, *, now: Callable[[], float] = time.monotonic) -> None:
        """*log* is a logger; *now* is in seconds."""
        self._log = log
        self._now = now
        self._lock = threading.Lock()
        self._since: dict[tuple[str, str, str], float] = {}
        self._suppressed: dict[tuple[str, str, str], int] = {}

    def add(self, event: str, reason: str, *, level: str = "warning", **details: str) -> None:
        """Log *event* for *reason* with *details*, or only count it for the next summary."""
        key = (event, reason, level)
        with self._lock:
            first = key not in self._since
            if first:
                self._since[key] = self._now()
                self._suppressed[key] = 0
            else:
                self._suppressed[key] += 1
        if first:
            getattr(self._log, level)(event, reason=reason, count=1, **details)

    def flush(self, *, force: bool = False) -> None:
        """Log the summaries that are due; call it about once per second, and with *force* at shutdown."""
        due = []
        with self._lock:
            for key, since in list(self._since.items()):
                if force or self._now() - since >= SUMMARY_INTERVAL_SECONDS:
                    suppressed = self._suppressed.pop(key)
                    del self._since[key]
                    if suppressed:
                        due.append((key, suppressed))
                        self._since[key], self._suppressed[key] = self._now(), 0
        for (event, reason, level), suppressed in due:
            getattr(self._log, level)(event, reason=reason, count=suppressed, seconds=SUMMARY_INTERVAL_SECONDS)


def _standard_keys() -> list[Any]:
    return [
        structlog.stdlib.add_log_level,
        structlog.stdlib.add_logger_name,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
    ]


def _scrub(_logger: object, _name: str, entry: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    entry["event"] = _SECRET.sub("[removed]", str(entry["event"]))
    return entry


def _short_exception(_logger: object, _name: str, entry: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    """Log an exception's type and frames without its message, which may contain request data."""
    exc_info = entry.pop("exc_info", None)
    raised = exc_info[1] if isinstance(exc_info, tuple) else exc_info
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
    return {name: _truncated(entry[name]) for name in names if name in entry}


def _truncated(value: object) -> object:
    return value[:MAX_VALUE_CHARACTERS] if isinstance(value, str) else value
