"""An upgrade of the whole release from an earlier version, and a rollback, under load.

`TEST_UPGRADE_CHART` is the directory of the earlier chart, and `TEST_UPGRADE_IMAGE` its image, which the nodes have.
"""

import json
import os
from collections.abc import Iterator
from contextlib import ExitStack

import pytest

from tests.cluster import pods
from tests.cluster.kube import Namespace, until
from tests.cluster.test_deliveries import KEY, received, to
from tests.cluster.test_deliveries import SECRET as RELAY_SECRET
from tests.cluster.test_engines import RECEIVERS, database, make_inbox_secret, on_postgresql

CHART, IMAGE = (os.environ.get(f"TEST_UPGRADE_{name}", "") for name in ("CHART", "IMAGE"))
pytestmark = [
    pytest.mark.needs("cluster"),
    pytest.mark.long,
    pytest.mark.timeout(1200),
    pytest.mark.skipif(not (CHART and IMAGE), reason="TEST_UPGRADE_CHART and _IMAGE name no earlier version"),
]
KINDS = {"sqlite": "statefulset", "postgresql": "deployment"}


class Release:
    """The release on one engine."""

    def __init__(self, here: Namespace, engine: str, options: list[str]) -> None:
        self.here = here
        self.kind = KINDS[engine]
        self.options = options
        here.target = f"{self.kind}/wh-whatsapp-webhook"

    def settle(self) -> None:
        """Wait until only pods of the current version serve; the relay of an earlier one may not start with SQLite."""
        wanted = self.versions()

        def is_served() -> bool:
            containers = [pod["spec"]["containers"][0] for pod in self.here.objects("pod", RECEIVERS)]
            return {each["image"] for each in containers} == {wanted} and self.here.handshake(self.here.token)

        until(is_served, "the version is not served", timeout=180)

    def versions(self) -> str:
        return str(self.here.object(self.kind)["spec"]["template"]["spec"]["containers"][0]["image"])

    def upgrade(self) -> None:
        self.here.install(*self.options, *to("/events"))
        self.settle()

    def roll_back(self) -> None:
        self.here.helm("rollback", "wh", "1")
        self.settle()


@pytest.fixture(
    params=["sqlite", pytest.param("postgresql", marks=pytest.mark.needs("cluster_postgresql"))],
)
def release(request: pytest.FixtureRequest) -> Iterator[Release]:
    """The earlier version, ready, with a destination."""
    with ExitStack() as stack:
        url = stack.enter_context(database()) if request.param == "postgresql" else ""
        here = stack.enter_context(Namespace())
        options = []
        if url:
            make_inbox_secret(here, url)
            options = on_postgresql()
        for manifest in pods.sink("app"):
            here.kubectl("apply", "-f", "-", text=json.dumps(manifest))
        here.make_secret()
        here.kubectl("create", "secret", "generic", RELAY_SECRET, f"--from-literal=app={KEY}")
        tag = IMAGE.rpartition(":")[2]
        here.helm("install", "wh", CHART, "--set", f"image.tag={tag}", *options, *to("/events"))
        made = Release(here, request.param, options)
        made.settle()
        yield made


def test_an_upgrade_and_a_rollback_of_the_release(release: Release) -> None:
    """Earlier, this, earlier, this: every acknowledged event is stored and delivered."""
    here, acknowledged = release.here, set[str]()
    earlier = release.versions()
    for step in (release.upgrade, release.roll_back, release.upgrade):
        with here.load(300, rate=50, after=2) as results:
            step()
        (load,) = results
        acknowledged |= set(load.acknowledged)
        print(f"{release.kind} {step.__name__}: {load.gap:.1f} s without a 200, {load.answers}")
        assert (release.versions() == earlier) is (step == release.roll_back)
    assert acknowledged <= here.kept()

    def undelivered() -> set[str]:
        return acknowledged - {each["headers"]["ce-id"].split(":")[1] for each in received(here, "/events")}

    until(lambda: not undelivered(), "not everything was delivered")
    print(f"{release.kind}: {len(acknowledged)} events, all stored and delivered")
