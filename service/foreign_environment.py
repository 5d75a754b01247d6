"""Environment variables that are meant for the libraries of another program.

A platform, a shell or a base image may set them for all that runs there. Some libraries read them while they are
imported, and end with a traceback if the value is odd; others would change what this program promises. They are taken
out before anything else is imported. docs/kubernetes.md has the table of all that is read.
"""

import re
from collections.abc import MutableMapping
from typing import Final, NamedTuple

# What is set instead.
OVERRIDDEN: Final = {
    "WEB_CONCURRENCY": "WEBHOOK_WORKERS",
    "GUNICORN_CMD_ARGS": "WEBHOOK_*",
    "FORWARDED_ALLOW_IPS": "no proxy's word is taken",
    "PROMETHEUS_MULTIPROC_DIR": "WEBHOOK_RUN_DIR",
    "prometheus_multiproc_dir": "WEBHOOK_RUN_DIR",
    "GUNICORN_PID": "WEBHOOK_*",
    "GUNICORN_FD": "WEBHOOK_BIND",
    "GUNICORN_DIRTY_SOCKET": "WEBHOOK_*",
    "LISTEN_FDS": "WEBHOOK_BIND",
    "LISTEN_PID": "WEBHOOK_BIND",
    "SENDFILE": "WEBHOOK_*",
    "SCRIPT_NAME": "WEBHOOK_PATH",
    "FALCON_CUSTOM_HTTP_METHODS": "GET and POST are served",
    "FALCON_DECORATE_ON_REQUEST": "WEBHOOK_*",
    "OTEL_PROPAGATORS": "a caller's trace context is never taken over",
    "OTEL_PYTHON_CONTEXT": "WEBHOOK_*",
    "OTEL_PYTHON_EXCLUDED_URLS": "OTEL_TRACES_SAMPLER",
    "OTEL_PYTHON_FALCON_EXCLUDED_URLS": "OTEL_TRACES_SAMPLER",
    "OTEL_PYTHON_FALCON_TRACED_REQUEST_ATTRS": "a closed set of attributes leaves",
}
OVERRIDDEN_PREFIXES: Final = ("GEVENT_",)


# OpenTelemetry reads its limits while it is imported, and raises if one is no number.
LIMIT: Final = re.compile(r"OTEL_[A-Z_]*_LIMIT")


class Ignored(NamedTuple):
    """Names of variables that were taken out: those that are overridden, and those that keep tracing off."""

    overridden: tuple[str, ...] = ()
    malformed: tuple[str, ...] = ()

    def told(self) -> list[str]:
        """Return each variable that is overridden, with what is followed instead."""
        return [f"{name} ({OVERRIDDEN[name]} instead)" if name in OVERRIDDEN else name for name in self.overridden]

    def problems(self) -> list[str]:
        """Return a sentence for each variable without which tracing is off."""
        return [f"{name} wants a whole number that is not negative." for name in self.malformed]


def take_out(environ: MutableMapping[str, str]) -> Ignored:
    """Remove from *environ* what is overridden, and what OpenTelemetry can't even be imported with."""
    names = sorted(name for name in environ if name in OVERRIDDEN or name.startswith(OVERRIDDEN_PREFIXES))
    overridden = tuple(name for name in names if environ.pop(name))
    malformed = tuple(name for name in sorted(environ) if LIMIT.fullmatch(name) and not _is_number(environ[name]))
    for name in malformed:
        del environ[name]
    if malformed:
        environ["OTEL_SDK_DISABLED"] = "true"
    return Ignored(overridden, malformed)


def _is_number(text: str) -> bool:
    return not text.strip() or (text.isascii() and text.strip().isdigit())
