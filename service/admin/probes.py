"""Probes for Kubernetes and load balancers: liveness, readiness and health."""

import json
from collections.abc import Callable, Mapping

import falcon

Check = Callable[[], str | None]


class Livez:
    """`/livez`: it fails only by not answering, so that Kubernetes restarts a hung process."""

    def on_get(self, _req: falcon.Request, resp: falcon.Response) -> None:
        """Answer 200."""
        resp.text = "alive\n"

    on_head = on_get


class Readyz:
    """`/readyz`: whether the process is ready, and if not, why."""

    def __init__(self, checks: Mapping[str, Check]) -> None:
        """Each of *checks* returns a problem, or None."""
        self._checks = checks

    def on_get(self, _req: falcon.Request, resp: falcon.Response) -> None:
        """Return each check, and why it fails, as JSON."""
        problems = {name: check() for name, check in self._checks.items()}
        ready = not any(problems.values())
        resp.status = falcon.HTTP_200 if ready else falcon.HTTP_503
        checks = {name: {"ok": why is None} | ({"why": why} if why else {}) for name, why in problems.items()}
        resp.content_type = falcon.MEDIA_JSON
        resp.text = json.dumps({"ready": ready, "checks": checks}, indent=2) + "\n"

    on_head = on_get


class Health:
    """`WEBHOOK_HEALTH_PATH` on the public listener: shows a load balancer only whether to send requests here."""

    def __init__(self, checks: Mapping[str, Check]) -> None:
        """Each of *checks* returns a problem, or None."""
        self._checks = checks

    def on_get(self, _req: falcon.Request, resp: falcon.Response) -> None:
        """Answer 200 or 503, with an empty body."""
        resp.status = falcon.HTTP_503 if any(check() for check in self._checks.values()) else falcon.HTTP_200

    on_head = on_get
