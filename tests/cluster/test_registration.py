"""The Job that has Meta send to the release, on a real cluster, against the tests' Graph API; the tests run in order.

The Graph API's handshake comes by the Service: `stands_for` is in the place of the ingress that ends TLS.
"""

import base64
import json
import re
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import trustme

from tests.cluster import pods
from tests.cluster.kube import CHART, POD, SECRET, Namespace, image_values, run, until
from tests.support import graph

pytestmark = [pytest.mark.needs("cluster"), pytest.mark.timeout(900)]
JOB = "wh-whatsapp-webhook-subscribe"
URL, OTHER = "https://wa.example.com/webhooks", "https://wa.example.org/webhooks"
APP, ACCOUNT = "188559381496048", "102290129340398"
TOKEN = "system-user"


@pytest.fixture(scope="module")
def here(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Namespace]:
    """A namespace with a Graph API where nothing is set up, and its authority's certificate in the ConfigMap `ca`."""
    directory, authority = tmp_path_factory.mktemp("meta"), trustme.CA()
    with Namespace() as namespace:
        found = graph.state()
        namespace.secret = found["apps"][APP]["secret"]
        release = f"http://wh-whatsapp-webhook.{namespace.name}"
        found["stands_for"] = {"wa.example.com": release, "wa.example.org": release}
        (directory / "state.json").write_text(json.dumps(found))
        authority.issue_cert(f"graph.{namespace.name}").private_key_and_cert_chain_pem.write_to_path(
            directory / "tls.pem"
        )
        authority.cert_pem.write_to_path(directory / "ca.crt")
        namespace.kubectl("create", "secret", "generic", "meta", *files(directory, "state.json", "tls.pem"))
        namespace.kubectl("create", "configmap", "ca", *files(directory, "ca.crt"))
        for made in pods.graph("graph", "meta"):
            namespace.kubectl("apply", "-f", "-", text=json.dumps(made))
        namespace.kubectl("wait", "--for=condition=Ready", "pod/graph", "--timeout=60s")
        (access_token,) = found["tokens"]
        namespace.kubectl("create", "secret", "generic", TOKEN, f"--from-literal=access-token={access_token}")
        yield namespace


def files(directory: Path, *names: str) -> list[str]:
    return [f"--from-file={directory / name}" for name in names]


def subscribing(here: Namespace, url: str = URL, *more: str) -> list[str]:
    """Say, as helm's options, that Meta is to send to *url*."""
    told = f"enabled=true,callbackUrl={url},existingSecret={TOKEN},graphUrl=https://graph.{here.name}"
    options = [f"subscribe.{each}" for each in (*told.split(","), *more)]
    return [
        *("--set", ",".join(options)),
        *("--set-string", f"subscribe.appId={APP},subscribe.accounts[0]={ACCOUNT}"),
        *("--set", "subscribe.fields={messages,account_update}"),
        # Of those that nothing else here takes: the cluster's other volumes may all be in use.
        *("--set", "persistence.accessMode=ReadWriteOnce"),
        *("--set", "extraVolumes[0].name=ca,extraVolumes[0].configMap.name=ca"),
        *("--set", "extraVolumeMounts[0].name=ca,extraVolumeMounts[0].mountPath=/ca"),
        *("--set", "extraEnv[0].name=SSL_CERT_FILE,extraEnv[0].value=/ca/ca.crt"),
    ]


def said(here: Namespace) -> str:
    """Give what the Job's tries said, one after the other, by the command that the notes tell."""
    (command,) = re.findall(r"kubectl .* logs .*", here.helm("status", "wh"))
    stamped = run("sh", "-c", command).stdout.splitlines()
    return "".join(f"{line.partition(' ')[2]}\n" for line in stamped)


def changed(here: Namespace) -> list[str]:
    """Give the requests that changed something at the Graph API."""
    time.sleep(0.5)  # it tells them twice a second
    return [line for line in here.kubectl("logs", "graph").splitlines() if line.startswith(("POST", "DELETE"))]


def refused(here: Namespace, *options: str) -> str:
    """Install or upgrade in vain, and give what helm says."""
    done = run(
        "helm", "-n", here.name, "upgrade", "--install", "wh", str(CHART), *image_values(), *options, check=False
    )
    assert done.returncode != 0, done.stdout
    return done.stdout + done.stderr


def test_without_its_secret_nothing_is_installed(here: Namespace) -> None:
    """The Job would fail; which Secret and which key are said."""
    assert f"the Secret {SECRET} has no key verify-token yet" in refused(here, *subscribing(here))
    here.make_secret()
    told = refused(here, *subscribing(here), "--set", "subscribe.existingSecret=")
    assert f"the Secret {SECRET} has no key access-token yet" in told
    assert here.kubectl("get", "service,statefulset,job", "-l", "app.kubernetes.io/instance=wh") == ""


def test_from_nothing_to_subscribed(here: Namespace) -> None:
    """One `helm install`, whose pod starts meanwhile: what fails at first is tried again, until Meta has it so."""
    started = time.monotonic()
    notes = here.install(*subscribing(here))
    took = time.monotonic() - started
    assert f"kubectl --namespace {here.name} logs --selector job-name={JOB}" in notes
    status = here.object("job", JOB)["status"]
    assert status["succeeded"] == 1
    told = said(here)
    assert f"app {APP}\n  now   nothing\n  then  {URL}: account_update, messages\n" in told
    assert "Done: Meta now has this registration." in told
    assert changed(here) == [f"POST {APP}/subscriptions", f"POST {ACCOUNT}/subscribed_apps"]
    assert "handshake verified" in here.kubectl("logs", POD)
    assert here.restarts() == 0
    print(f"from helm install to subscribed: {took:.0f} s, {status.get('failed', 0)} tries failed before")


def test_the_pod_may_nothing(here: Namespace) -> None:
    """It passed Pod Security `restricted`, which the namespace enforces; no token is mounted, no secret is logged."""
    (pod, *_) = here.objects("pod", f"job-name={JOB}")
    assert pod["spec"]["automountServiceAccountToken"] is False
    assert {volume["name"] for volume in pod["spec"]["volumes"]} == {"credentials", "ca"}
    token = base64.b64decode(here.object("secret", TOKEN)["data"]["access-token"]).decode()
    for secret in (here.secret, here.token, token):
        assert secret not in said(here)


def test_the_doctor_in_the_pod(here: Namespace) -> None:
    """Sees its half, and says how the other one is seen; helm test before it is no cause for alarm."""
    here.helm("test", "wh")
    told = json.loads(here.kubectl("exec", POD, "--", "whatsapp-webhook", "doctor", "--json"))
    states = {each["check"]: each["state"] for each in told["findings"]}
    assert told["ok"], told
    for check in ("configuration", "credentials", "service", "direct", "inbox"):
        assert states[check] == "ok", told
    assert {check for check, state in states.items() if state == "unknown"} == {"counters", "url", "app"}
    unseen = [each["remedy"] for each in told["findings"] if each["check"] in ("url", "app")]
    assert all("whatsapp-webhook doctor --url URL" in remedy for remedy in unseen)


def test_an_upgrade_changes_nothing(here: Namespace) -> None:
    """Where Meta has it so; the Job is another one."""
    before, first = changed(here), here.object("job", JOB)["metadata"]["uid"]
    here.install(*subscribing(here), "--set", "log.level=debug")
    assert here.object("job", JOB)["metadata"]["uid"] != first
    assert "Nothing to change: Meta already has this registration." in said(here)
    assert changed(here) == before


def test_what_is_registered_elsewhere_stays(here: Namespace) -> None:
    """The upgrade fails, and the Job's log says why; the receiver runs on. `replace` says that it may go."""
    before = changed(here)
    told = refused(here, *subscribing(here, OTHER, "backoffLimit=0"))
    assert JOB in told
    assert f"The app sends to {URL}" in said(here)
    assert "--replace" in said(here)
    assert changed(here) == before
    here.wait_ready()
    here.install(*subscribing(here, OTHER, "replace=true"))
    assert changed(here) == [*before, f"POST {APP}/subscriptions"]
    print(f"helm says:\n{told}")


def test_what_can_never_work_is_tried_once(here: Namespace) -> None:
    """Another URL that stays, say: the upgrade fails at once, however often a failure is tried again."""
    before, started = changed(here), time.monotonic()
    refused(here, *subscribing(here, URL))
    assert time.monotonic() - started < 30
    assert said(here).count(f"The app sends to {OTHER}") == 1
    assert changed(here) == before


def test_what_passes_by_itself_is_waited_for(here: Namespace) -> None:
    """A way in that is not there yet, as while a certificate is made: tried again, the logs of all tries stay."""
    here.kubectl("delete", "service", "graph")
    command = ["helm", "-n", here.name, "upgrade", "wh", str(CHART), *image_values(), *subscribing(here, OTHER)]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL) as upgrade:
        until(lambda: "is not found" in here.kubectl("logs", "-l", f"job-name={JOB}", check=False), "no try failed")
        assert upgrade.poll() is None
        _, service = pods.graph("graph", "meta")
        here.kubectl("apply", "-f", "-", text=json.dumps(service))
        assert upgrade.wait(240) == 0
    told = said(here)
    assert 0 <= told.index("is not found") < told.index("Nothing to change")


def test_an_uninstall_leaves_meta_as_it_is(here: Namespace) -> None:
    """What is registered there is ended by `unsubscribe`; the Job stays for its log, and goes by itself."""
    before = changed(here)
    here.helm("uninstall", "wh", "--wait")
    assert changed(here) == before
    assert here.object("job", JOB)["spec"]["ttlSecondsAfterFinished"] > 0
