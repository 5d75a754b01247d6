"""The admin application."""

from collections.abc import Mapping
from typing import Any

import falcon

from service.admin.metrics_page import MetricsPage
from service.admin.probes import Check, Livez, Readyz
from service.strict_app import strict_app


def create_admin(checks: Mapping[str, Check], page: MetricsPage) -> falcon.App[Any, Any]:
    """Return the admin application, without starting anything."""
    app = strict_app([])
    app.add_route("/livez", Livez())
    app.add_route("/readyz", Readyz(checks))
    app.add_route("/metrics", page)
    return app
