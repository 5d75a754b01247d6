"""The one table of settings: the config class, `check` and the README follow it."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from service.config.parsers import (
    address,
    count,
    duration,
    graph_url,
    graph_version,
    health_path,
    ids,
    inbox_url,
    names,
    one_id,
    one_of,
    public_url,
    url_path,
)

VARIABLE_PREFIX = "WEBHOOK_"
MAX_HEADER_BYTES = 30_000  # a request's line and all of its fields may have 32,768
INBOX_FILE = "WEBHOOK_INBOX_FILE"
# What commands that ask Meta take from the environment too, and the file that each stands for. A server reads files.
SECRETS = {
    "WEBHOOK_VERIFY_TOKEN": "verify-token",
    "WEBHOOK_APP_SECRET": "app-secret",
    "WEBHOOK_ACCESS_TOKEN": "access-token",
}


@dataclass(frozen=True, slots=True)
class Setting:
    """One variable: its name, its default as it would be written, how it is read, what it means."""

    name: str
    default: str
    parse: Callable[[str], object]
    meaning: str


SETTINGS = (
    Setting("WEBHOOK_BIND", "0.0.0.0:8080", address, "Where the public listener binds; `[::]:8080` is IPv6 and IPv4."),
    Setting("WEBHOOK_ADMIN_BIND", "127.0.0.1:9090", address, "Where probes and metrics are served. Never expose it."),
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
    Setting("WEBHOOK_RELAY_BIND", "127.0.0.1:9091", address, "Where the relay's probes and metrics are served."),
    Setting(
        "WEBHOOK_RUN_DIR",
        "/run/whatsapp-webhook",
        Path,
        "A directory in memory: heartbeat, drain mark, metrics of several workers. Of the service's user, or a mount.",
    ),
    Setting(
        "WEBHOOK_INBOX",
        "sqlite:///var/lib/whatsapp-webhook/inbox.db",
        inbox_url,
        "Where events are kept. `WEBHOOK_INBOX_FILE` names a file that holds this value instead.",
    ),
    Setting("WEBHOOK_FIELDS", "", names, "Which of Meta's fields to keep, with commas between; empty keeps all."),
    Setting("WEBHOOK_MAX_BODY_BYTES", "4194304", count(2**30), "A larger body is answered 413. Meta sends up to 3 MB."),
    Setting("WEBHOOK_READ_TIMEOUT", "10s", duration, "How long a request may take to arrive, in all."),
    Setting("WEBHOOK_ACCEPT_TIMEOUT", "2s", duration, "How long the inbox may take before the answer is 503."),
    Setting(
        "WEBHOOK_KEEPALIVE_TIMEOUT",
        "75s",
        duration,
        "How long a connection may be idle; longer than what the proxy in front allows, so that it closes first.",
    ),
    Setting(
        "WEBHOOK_MAX_HEADER_BYTES",
        "8190",
        count(MAX_HEADER_BYTES),
        "The largest header field, name and value; a larger one is answered 431.",
    ),
    Setting(
        "WEBHOOK_HEALTH_PATH",
        "",
        health_path,
        "A second path of the public listener, for a load balancer's health check: 200 or 503, empty; empty for none.",
    ),
    Setting("WEBHOOK_WORKERS", "1", count(256), "Worker processes. SQLite serves one."),
    Setting("WEBHOOK_CONNECTIONS", "4096", count(2**20), "Connections a worker holds at once."),
    Setting(
        "WEBHOOK_INFLIGHT_BYTES",
        "134217728",
        count(2**40),
        "Bytes of requests in flight, a worker; above it the slowest unfinished one gives way.",
    ),
    Setting("WEBHOOK_RETENTION", "8d", duration, "How long an event's id is remembered, so that a repeat is told."),
    Setting("WEBHOOK_BODY_RETENTION", "8d", duration, "How long an event's data is kept; at most the retention."),
    Setting(
        "WEBHOOK_DESTINATIONS", "", str, "The path of the relay's destinations file; empty where there is no relay."
    ),
    Setting(
        "WEBHOOK_CALLBACK_URL", "", public_url, "The URL that Meta calls; for `subscribe`, `status` and `doctor` alone."
    ),
    Setting("WEBHOOK_APP_ID", "", one_id, "The id of the app at Meta, for the same commands."),
    Setting("WEBHOOK_ACCOUNTS", "", ids, "Ids of WhatsApp Business accounts, with commas between, for the same."),
    Setting("WEBHOOK_GRAPH_URL", "https://graph.facebook.com", graph_url, "Where the Graph API is, for the same."),
    Setting("WEBHOOK_GRAPH_VERSION", "v26.0", graph_version, "Its version; Meta keeps each for about two years."),
    Setting(
        "WEBHOOK_LOG_LEVEL",
        "info",
        one_of("debug", "info", "warning", "error"),
        "The least level that is logged.",
    ),
    Setting(
        "WEBHOOK_LOG_FORMAT",
        "",
        one_of("", "json", "console"),
        "`json` or `console`; empty is `console` on a terminal, else `json`.",
    ),
)
