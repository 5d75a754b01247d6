"""Environment variables that libraries would read, but this program ignores.

A platform, a shell or a base image may set them for every program. Some libraries read them on import, and fail with a
traceback if a value is invalid; others would change this program's guarantees. They are removed before anything else is
imported. docs/kubernetes.md has the table of all variables that libraries read.
"""

import re
from collections.abc import MutableMapping
from typing import Final, NamedTuple

# Each variable with what applies in its place.
OVERRIDDEN: Final = {
    "WEB_CONCURRENCY": "use WEBHOOK_WORKERS",
    "GUNICORN_CMD_ARGS": "use WEBHOOK_*",
    "FORWARDED_ALLOW_IPS": "proxy headers are not trusted",
    "PROMETHEUS_MULTIPROC_DIR": "use WEBHOOK_RUN_DIR",
    "prometheus_multiproc_dir": "use WEBHOOK_RUN_DIR",
    "GUNICORN_PID": "use WEBHOOK_*",
    "GUNICORN_FD": "use WEBHOOK_BIND",
    "GUNICORN_DIRTY_SOCKET": "use WEBHOOK_*",
    "LISTEN_FDS": "use WEBHOOK_BIND",
    "LISTEN_PID": "use WEBHOOK_BIND",
    "SENDFILE": "use WEBHOOK_*",
    "SCRIPT_NAME": "use WEBHOOK_PATH",
    "FALCON_CUSTOM_HTTP_METHODS": "only GET and POST are served",
    "FALCON_DECORATE_ON_REQUEST": "use WEBHOOK_*",
    "OTEL_PROPAGATORS": "a caller's trace context is never used",
    "OTEL_PYTHON_CONTEXT": "use WEBHOOK_*",
    "OTEL_PYTHON_EXCLUDED_URLS": "use OTEL_TRACES_SAMPLER",
    "OTEL_PYTHON_FALCON_EXCLUDED_URLS": "use OTEL_TRACES_SAMPLER",
    "OTEL_PYTHON_FALCON_TRACED_REQUEST_ATTRS": "only a fixed set of attributes is exported",
}
OVERRIDDEN_PREFIXES: Final = ("GEVENT_",)


# OpenTelemetry reads its limits on import, and raises if one is not a number.
LIMIT: Final = re.compile(r"OTEL_[A-Z_]*_LIMIT")


class Ignored(NamedTuple):
    """Names of variables that were removed: overridden ones, and malformed ones that disable tracing."""

    overridden: tuple[str, ...] = ()
    malformed: tuple[str, ...] = ()

    def descriptions(self) -> list[str]:
        """Return each overridden variable with what applies in its place."""
        return [f"{name} ({OVERRIDDEN[name]})" if name in OVERRIDDEN else name for name in self.overridden]

    def problems(self) -> list[str]:
        """Return a sentence for each malformed variable; each disables tracing."""
        return [f"{name} must be a whole number that is not negative." for name in self.malformed]


def remove_ignored(environ: MutableMapping[str, str]) -> Ignored:
    """Remove overridden variables from *environ*, and malformed ones with which OpenTelemetry can't be imported."""
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
