"""The admin listener: `/livez`, `/readyz`, `/metrics`, on a port and in threads of its own.

It still answers when the public side is saturated, and is never put behind an Ingress.
"""

import json
import socket
import threading
from collections.abc import Callable, Mapping
from typing import Any

import falcon
import prometheus_client.exposition
import waitress.server
from prometheus_client import CollectorRegistry

Check = Callable[[], str | None]


class Livez:
    """Whether a restart would not help."""

    def on_get(self, _req: falcon.Request, resp: falcon.Response) -> None:
        """Say that the process answers: it fails by not answering."""
        resp.text = "alive\n"

    on_head = on_get


class Readyz:
    """Whether notifications can be taken now, and if not, why."""

    def __init__(self, checks: Mapping[str, Check]) -> None:
        """Each of *checks* says what is wrong, or None."""
        self._checks = checks

    def on_get(self, _req: falcon.Request, resp: falcon.Response) -> None:
        """Say each check and why it fails, as JSON."""
        found = {name: check() for name, check in self._checks.items()}
        ready = not any(found.values())
        resp.status = falcon.HTTP_200 if ready else falcon.HTTP_503
        checks = {name: {"ok": why is None} | ({"why": why} if why else {}) for name, why in found.items()}
        resp.content_type = falcon.MEDIA_JSON
        resp.text = json.dumps({"ready": ready, "checks": checks}, indent=2) + "\n"

    on_head = on_get


class Health:
    """What a load balancer in front asks on the public listener; it learns nothing but whether to send here."""

    def __init__(self, checks: Mapping[str, Check]) -> None:
        """Each of *checks* returns what is wrong, or None."""
        self._checks = checks

    def on_get(self, _req: falcon.Request, resp: falcon.Response) -> None:
        """Answer 200 or 503, with an empty body."""
        resp.status = falcon.HTTP_503 if any(check() for check in self._checks.values()) else falcon.HTTP_200

    on_head = on_get


class MetricsPage:
    """What Prometheus scrapes."""

    def __init__(self, registry: CollectorRegistry, refresh: Callable[[], None]) -> None:
        """*refresh* publishes the gauges."""
        self._registry = registry
        self._refresh = refresh

    def on_get(self, req: falcon.Request, resp: falcon.Response) -> None:
        """Give all metrics, in the text format or, when asked for, as OpenMetrics."""
        self._refresh()
        try:
            encode, resp.content_type = prometheus_client.exposition.choose_encoder(req.get_header("Accept") or "")
        except (TypeError, ValueError):  # a version that is none
            encode, resp.content_type = prometheus_client.exposition.choose_encoder("")
        resp.data = encode(self._registry)

    on_head = on_get


class AdminServer:
    """Serves the admin application from threads of its own."""

    def __init__(self, app: falcon.App[Any, Any], listener: socket.socket) -> None:
        """*listener* is bound and listening; it may be shared with other workers."""
        self._server = waitress.server.create_server(
            app,
            sockets=[listener],
            ident=None,
            threads=2,
            asyncore_use_poll=True,
            channel_timeout=5,
            cleanup_interval=5,
            connection_limit=1000,
            max_request_body_size=1024,
        )
        self._thread = threading.Thread(target=self._server.run, name="admin", daemon=True)

    def start(self) -> None:
        """Begin to answer."""
        self._thread.start()

    def stop(self) -> None:
        """End; what is being answered may be cut."""
        self._server.close()
