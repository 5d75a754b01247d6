"""What Kubernetes and load balancers ask: whether the process lives, and whether it is ready."""

import json
from collections.abc import Callable, Mapping

import falcon

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
