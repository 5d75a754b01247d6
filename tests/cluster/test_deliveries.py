"""The relay on a real cluster: a destination gets the events that arrived through the Service; tests run in order."""

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
        for manifest in pods.sink("app"):
            namespace.kubectl("apply", "-f", "-", text=json.dumps(manifest))
        namespace.make_secret()
        yield namespace


def to(*paths: str, **more: Any) -> list[str]:
    """Return helm's options for a destination per path of the pod `app`."""
    entries = [
        {"name": path.strip("/"), "url": f"http://app:8080{path}", "internal": True, "secretFile": "app"}
        | {"format": "cloudevents", "tests": True}
        | more
        for path in paths
    ]
    return ["--set-json", f"relay.destinations={json.dumps(entries)}"]


def received(here: Namespace, path: str) -> list[dict[str, Any]]:
    """Return the requests that the pod `app` received at a path."""
    requests = [json.loads(line) for line in here.kubectl("logs", "app").splitlines() if line.startswith("{")]
    return [each for each in requests if each["path"] == path]


def test_events_from_the_service_are_delivered(here: Namespace) -> None:
    """Installed without its secret, the relay reports that, waits for it, and continues without a restart."""
    notes = here.install(*to("/events"))
    line = f'kubectl --namespace {here.name} create secret generic {SECRET} --from-literal=app="whsec_'
    assert line in notes
    here.wait_ready()  # the relay's container has no readiness probe
    until(lambda: "can't be read" in here.kubectl("logs", POD, "-c", "relay"), "the missing secret is not reported")
    here.kubectl("create", "secret", "generic", SECRET, f"--from-literal=app={KEY}")
    here.touch()
    log = "logs", POD, "-c", "relay"
    until(lambda: '"event": "destination started"' in here.kubectl(*log), "the secret was not loaded")
    with here.load(5, rate=50) as results:
        pass
    (load,) = results
    until(lambda: len(received(here, "/events")) >= len(load.acknowledged), "not all were delivered")
    ids = {each["headers"]["ce-id"].split(":")[1] for each in received(here, "/events")}
    assert set(load.acknowledged) <= ids
    for each in received(here, "/events"):
        Webhook(KEY).verify(each["body"], each["headers"])
    assert here.restarts() == 0
    print(f"{len(load.acknowledged)} notifications through the Service, all delivered: {load.answers}")


def test_changes_of_destinations_and_secrets_are_loaded_without_a_restart(here: Namespace) -> None:
    """The ConfigMap and the Secret change, and the pod stays."""
    pod = here.uid()
    here.install(*to("/other", format="meta"))
    here.touch()
    until(
        lambda: "other" in here.kubectl("exec", POD, "-c", "relay", "--", "whatsapp-webhook", "destinations", "list"),
        "the new destination is not listed",
    )
    here.kubectl(
        "exec", POD, "-c", "receiver", "--", "whatsapp-webhook", "simulate", f"{SELF}:8080/webhooks", "--only-test"
    )
    until(lambda: received(here, "/other"), "nothing was received")
    (request,) = received(here, "/other")
    assert request["headers"][signature.HEADER] == signature.header_for(request["body"].encode(), KEY.encode())
    here.kubectl("patch", "secret", SECRET, "-p", json.dumps({"stringData": {"app": f"{NEW_KEY}\n{KEY}\n"}}))
    here.touch()

    def signed_with_new_key() -> bool:
        test = ["whatsapp-webhook", "simulate", f"{SELF}:8080/webhooks", "--only-test"]
        here.kubectl("exec", POD, "-c", "receiver", "--", *test)
        last = received(here, "/other")[-1]
        return bool(last["headers"][signature.HEADER] == signature.header_for(last["body"].encode(), NEW_KEY.encode()))

    until(signed_with_new_key, "the new secret is not used")
    assert here.uid() == pod


def test_a_crashing_relay_does_not_affect_the_receiver(here: Namespace) -> None:
    """The relay's state can't be opened, so it keeps crashing: every notification is answered 200 and stored."""
    here.install(*to("/late", **{"from": "beginning"}))
    state = "/var/lib/whatsapp-webhook/relay.db"
    spoil = f"import os; os.rename('{state}', '{state}.old'); os.mkdir('{state}'); os.kill(1, 15)"
    here.kubectl("exec", POD, "-c", "relay", "--", "python", "-c", spoil, check=False)
    until(lambda: _crashes(here) >= 2, "it does not crash")
    with here.load(20, rate=50) as results:
        pass
    (load,) = results
    assert set(load.answers) == {"notification 200", "handshake 200"}, load.answers
    assert set(load.acknowledged) <= here.kept()
    crashes = _crashes(here)
    fix = f"import os; os.rmdir('{state}')"
    here.kubectl("exec", POD, "-c", "receiver", "--", "python", "-c", fix)
    until(lambda: set(load.acknowledged) <= _ids(here, "/late"), "events stored meanwhile are not delivered", 400)
    assert here.restarts() == 0
    print(f"while the relay crashed {crashes} times: {load.answers}; all delivered after it was fixed")


def _crashes(here: Namespace) -> int:
    query = "jsonpath={.status.containerStatuses[?(@.name=='relay')].restartCount}"
    return int(here.kubectl("get", "pod", POD, "-o", query))


def _ids(here: Namespace, path: str) -> set[str]:
    return {each["headers"]["ce-id"].split(":")[1] for each in received(here, path)}
