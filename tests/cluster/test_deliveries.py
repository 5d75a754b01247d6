"""The relay on a real cluster: a destination beside it gets what came through the Service; the tests run in order."""

import json
from collections.abc import Iterator
from typing import Any

import pytest
from standardwebhooks import Webhook

from service import signature
from tests.cluster import pods
from tests.cluster.kube import POD, SELF, Namespace, until

pytestmark = [pytest.mark.needs("cluster"), pytest.mark.timeout(900)]
KEY = "whsec_MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWY="
NEW_KEY = "whsec_YWJjZGVmMDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODk="
SECRET = "wh-whatsapp-webhook-relay"


@pytest.fixture(scope="module")
def here() -> Iterator[Namespace]:
    with Namespace() as namespace:
        for made in pods.taker("app"):
            namespace.kubectl("apply", "-f", "-", text=json.dumps(made))
        namespace.make_secret()
        yield namespace


def to(*paths: str, **more: Any) -> list[str]:
    """Say, as helm's options, that events go to these paths of the pod `app`: one destination each."""
    entries = [
        {"name": path.strip("/"), "url": f"http://app:8080{path}", "internal": True, "secretFile": "app"}
        | {"format": "cloudevents", "tests": True}
        | more
        for path in paths
    ]
    return ["--set-json", f"relay.destinations={json.dumps(entries)}"]


def taken(here: Namespace, path: str) -> list[dict[str, Any]]:
    """Give what came to a path."""
    told = [json.loads(line) for line in here.kubectl("logs", "app").splitlines() if line.startswith("{")]
    return [each for each in told if each["path"] == path]


def test_what_came_through_the_service_is_delivered(here: Namespace) -> None:
    """Installed without the relay's secret it waits for that, says so, and goes on without a restart."""
    notes = here.install(*to("/events"))
    line = f"kubectl --namespace {here.name} create secret generic {SECRET} --from-literal=app=whsec_"
    assert line in notes
    here.wait_ready()  # the relay's container has no readiness
    until(lambda: "can't be read" in here.kubectl("logs", POD, "-c", "relay"), "it does not say what is missing")
    here.kubectl("create", "secret", "generic", SECRET, f"--from-literal=app={KEY}")
    here.touch()
    log = "logs", POD, "-c", "relay"
    until(lambda: '"event": "destination started"' in here.kubectl(*log), "the secret was not loaded")
    with here.load(5, rate=50) as found:
        pass
    (load,) = found
    until(lambda: len(taken(here, "/events")) >= len(load.acknowledged), "not all were delivered")
    ids = {each["headers"]["ce-id"].split(":")[1] for each in taken(here, "/events")}
    assert set(load.acknowledged) <= ids
    for each in taken(here, "/events"):
        Webhook(KEY).verify(each["body"], each["headers"])
    assert here.restarts() == 0
    print(f"{len(load.acknowledged)} notifications through the Service, all of them delivered: {load.answers}")


def test_a_change_of_the_destinations_is_seen_live(here: Namespace) -> None:
    """By the ConfigMap alone: the pod stays, and the signing secret is rotated live as well."""
    pod = here.uid()
    here.install(*to("/other", format="meta"))
    here.touch()
    until(
        lambda: "other" in here.kubectl("exec", POD, "-c", "relay", "--", "whatsapp-webhook", "destinations", "list"),
        "?",
    )
    here.kubectl(
        "exec", POD, "-c", "receiver", "--", "whatsapp-webhook", "simulate", f"{SELF}:8080/webhooks", "--only-test"
    )
    until(lambda: taken(here, "/other"), "nothing came")
    (came,) = taken(here, "/other")
    assert came["headers"][signature.HEADER] == signature.header_for(came["body"].encode(), KEY.encode())
    here.kubectl("patch", "secret", SECRET, "-p", json.dumps({"stringData": {"app": f"{NEW_KEY}\n{KEY}\n"}}))
    here.touch()

    def signed_anew() -> bool:
        test = ["whatsapp-webhook", "simulate", f"{SELF}:8080/webhooks", "--only-test"]
        here.kubectl("exec", POD, "-c", "receiver", "--", *test)
        last = taken(here, "/other")[-1]
        return bool(last["headers"][signature.HEADER] == signature.header_for(last["body"].encode(), NEW_KEY.encode()))

    until(signed_anew, "the new secret is not taken")
    assert here.uid() == pod


def test_a_relay_that_crashes_takes_nothing_down(here: Namespace) -> None:
    """Its state can't be opened, and it ends again and again: every notification is answered 200, and kept."""
    here.install(*to("/late", **{"from": "beginning"}))
    state = "/var/lib/whatsapp-webhook/relay.db"
    spoil = f"import os; os.rename('{state}', '{state}.old'); os.mkdir('{state}'); os.kill(1, 15)"
    here.kubectl("exec", POD, "-c", "relay", "--", "python", "-c", spoil, check=False)
    until(lambda: _crashes(here) >= 2, "it does not crash")
    with here.load(20, rate=50) as found:
        pass
    (load,) = found
    assert set(load.answers) == {"notification 200", "handshake 200"}, load.answers
    assert set(load.acknowledged) <= here.kept()
    crashes = _crashes(here)
    mend = f"import os; os.rmdir('{state}')"
    here.kubectl("exec", POD, "-c", "receiver", "--", "python", "-c", mend)
    until(lambda: set(load.acknowledged) <= _ids(here, "/late"), "what was kept meanwhile is not delivered", 400)
    assert here.restarts() == 0
    print(f"while the relay crashed {crashes} times: {load.answers}; all of it delivered once it was mended")


def _crashes(here: Namespace) -> int:
    query = "jsonpath={.status.containerStatuses[?(@.name=='relay')].restartCount}"
    return int(here.kubectl("get", "pod", POD, "-o", query))


def _ids(here: Namespace, path: str) -> set[str]:
    return {each["headers"]["ce-id"].split(":")[1] for each in taken(here, path)}
