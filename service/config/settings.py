"""The table of settings, from which the config class, `check` and the table of docs/configuration.md derive."""

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
MAX_HEADER_BYTES = 30_000  # the request line and all header fields together may have 32,768
INBOX_FILE = "WEBHOOK_INBOX_FILE"
# Variables that commands which call the Graph API accept in place of a credentials file. A server reads only the files.
SECRETS = {
    "WEBHOOK_VERIFY_TOKEN": "verify-token",
    "WEBHOOK_APP_SECRET": "app-secret",
    "WEBHOOK_ACCESS_TOKEN": "access-token",
}


@dataclass(frozen=True, slots=True)
class Setting:
    """One environment variable: its name, default text, parser and meaning."""

    name: str
    default: str
    parse: Callable[[str], object]
    meaning: str


SETTINGS = (
    Setting(
        "WEBHOOK_BIND", "0.0.0.0:8080", address, "Address of the public listener; `[::]:8080` accepts IPv6 and IPv4."
    ),
    Setting(
        "WEBHOOK_ADMIN_BIND",
        "127.0.0.1:9090",
        address,
        "Address of the admin listener: probes and metrics. Never expose it.",
    ),
    Setting("WEBHOOK_PATH", "/webhooks", url_path, "The webhook's path on the public listener."),
    Setting(
        "WEBHOOK_CREDENTIALS_DIR",
        "/etc/whatsapp-webhook/credentials",
        Path,
        "Directory with the files `verify-token`, `app-secret` and, optionally, `log-key`.",
    ),
    Setting(
        "WEBHOOK_CREDENTIALS_HINT",
        "",
        str,
        "Sentence added to `/readyz` and the log while credentials are missing, such as where to put them.",
    ),
    Setting(
        "WEBHOOK_RELAY_BIND",
        "127.0.0.1:9091",
        address,
        "Address of the relay's admin listener: probes and metrics. Never expose it.",
    ),
    Setting(
        "WEBHOOK_RUN_DIR",
        "/run/whatsapp-webhook",
        Path,
        "Directory for runtime files (drain mark, metrics and liveness of workers), preferably on tmpfs. "
        "The service's user must own it, or it must be a mount.",
    ),
    Setting(
        "WEBHOOK_INBOX",
        "sqlite:///var/lib/whatsapp-webhook/inbox.db",
        inbox_url,
        "URL of the inbox, where events are stored. `WEBHOOK_INBOX_FILE` can name a file that contains it instead.",
    ),
    Setting("WEBHOOK_FIELDS", "", names, "Webhook fields to store, comma-separated; empty stores all."),
    Setting(
        "WEBHOOK_MAX_BODY_BYTES",
        "4194304",
        count(2**30),
        "Maximum body size; a larger body is answered 413. Meta sends up to 3 MB.",
    ),
    Setting("WEBHOOK_READ_TIMEOUT", "10s", duration, "Maximum time for a whole request to arrive."),
    Setting("WEBHOOK_ACCEPT_TIMEOUT", "2s", duration, "Maximum time to wait for the inbox before answering 503."),
    Setting(
        "WEBHOOK_KEEPALIVE_TIMEOUT",
        "75s",
        duration,
        "Maximum idle time of a connection; set it above the proxy's idle timeout, so that the proxy closes first.",
    ),
    Setting(
        "WEBHOOK_MAX_HEADER_BYTES",
        "8190",
        count(MAX_HEADER_BYTES),
        "Maximum size of a header field, name and value; a larger one is answered 431.",
    ),
    Setting(
        "WEBHOOK_HEALTH_PATH",
        "",
        health_path,
        "Path on the public listener for a load balancer's health check: 200 or 503, no body. Empty disables it.",
    ),
    Setting("WEBHOOK_WORKERS", "1", count(256), "Number of worker processes. SQLite supports one."),
    Setting("WEBHOOK_CONNECTIONS", "4096", count(2**20), "Maximum open connections per worker."),
    Setting(
        "WEBHOOK_INFLIGHT_BYTES",
        "134217728",
        count(2**40),
        "Maximum bytes of requests in flight per worker; above it, the slowest incomplete request is rejected.",
    ),
    Setting("WEBHOOK_RETENTION", "8d", duration, "How long event ids are stored, to recognize duplicates."),
    Setting("WEBHOOK_BODY_RETENTION", "8d", duration, "How long event data is stored; at most `WEBHOOK_RETENTION`."),
    Setting("WEBHOOK_DESTINATIONS", "", str, "Path of the relay's destinations file; empty without a relay."),
    Setting(
        "WEBHOOK_CALLBACK_URL",
        "",
        public_url,
        "Public URL that Meta calls. Used only by `subscribe`, `unsubscribe`, `status` and `doctor`.",
    ),
    Setting("WEBHOOK_APP_ID", "", one_id, "Id of the Meta app. Used by the same commands."),
    Setting(
        "WEBHOOK_ACCOUNTS", "", ids, "Ids of WhatsApp Business accounts, comma-separated. Used by the same commands."
    ),
    Setting(
        "WEBHOOK_GRAPH_URL",
        "https://graph.facebook.com",
        graph_url,
        "Base URL of the Graph API. Used by the same commands.",
    ),
    Setting(
        "WEBHOOK_GRAPH_VERSION",
        "v26.0",
        graph_version,
        "Version of the Graph API; Meta supports each for about two years.",
    ),
    Setting(
        "WEBHOOK_LOG_LEVEL",
        "info",
        one_of("debug", "info", "warning", "error"),
        "Minimum log level: `debug`, `info`, `warning` or `error`.",
    ),
    Setting(
        "WEBHOOK_LOG_FORMAT",
        "",
        one_of("", "json", "console"),
        "`json` or `console`; empty is `console` on a terminal, else `json`.",
    ),
)
