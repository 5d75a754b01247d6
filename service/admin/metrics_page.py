"""The page that Prometheus scrapes."""

from collections.abc import Callable

import falcon

from service.telemetry.metrics import CollectorRegistry, encoded


class MetricsPage:
    """`/metrics`."""

    def __init__(self, registry: CollectorRegistry, refresh: Callable[[], None]) -> None:
        """*refresh* publishes the gauges."""
        self._registry = registry
        self._refresh = refresh

    def on_get(self, req: falcon.Request, resp: falcon.Response) -> None:
        """Return all metrics, in the text format or, if `Accept` asks for it, as OpenMetrics."""
        self._refresh()
        resp.data, resp.content_type = encoded(self._registry, req.get_header("Accept") or "")

    on_head = on_get
