"""The Job that registers the release at Meta, on a real cluster, with the tests' Graph API; the tests run in order.

The Graph API sends its handshake to the Service: `stands_for` replaces the ingress that would terminate TLS.
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
    """A namespace with a Graph API without registrations, whose CA certificate is in the ConfigMap `ca`."""
    directory, authority = tmp_path_factory.mktemp("meta"), trustme.CA()
    with Namespace() as namespace:
        state = graph.state()
        namespace.secret = state["apps"][APP]["secret"]
        release = f"http://wh-whatsapp-webhook.{namespace.name}"
        state["stands_for"] = {"wa.example.com": release, "wa.example.org": release}
        (directory / "state.json").write_text(json.dumps(state))
        authority.issue_cert(f"graph.{namespace.name}").private_key_and_cert_chain_pem.write_to_path(
            directory / "tls.pem"
        )
        authority.cert_pem.write_to_path(directory / "ca.crt")
        namespace.kubectl("create", "secret", "generic", "meta", *files(directory, "state.json", "tls.pem"))
        namespace.kubectl("create", "configmap", "ca", *files(directory, "ca.crt"))
        for manifest in pods.graph("graph", "meta"):
            namespace.kubectl("apply", "-f", "-", text=json.dumps(manifest))
        namespace.kubectl("wait", "--for=condition=Ready", "pod/graph", "--timeout=60s")
        (access_token,) = state["tokens"]
        namespace.kubectl("create", "secret", "generic", TOKEN, f"--from-literal=access-token={access_token}")
        yield namespace


def files(directory: Path, *names: str) -> list[str]:
    return [f"--from-file={directory / name}" for name in names]


def subscribing(here: Namespace, url: str = URL, *more: str) -> list[str]:
    """Return helm's options for registering *url* at Meta."""
    settings = f"enabled=true,callbackUrl={url},existingSecret={TOKEN},graphUrl=https://graph.{here.name}"
    options = [f"subscribe.{each}" for each in (*settings.split(","), *more)]
    return [
        *("--set", ",".join(options)),
        *("--set-string", f"subscribe.appId={APP},subscribe.accounts[0]={ACCOUNT}"),
        *("--set", "subscribe.fields={messages,account_update}"),
        # An access mode that no other test uses: the cluster's other volumes may all be in use.
        *("--set", "persistence.accessMode=ReadWriteOnce"),
        *("--set", "extraVolumes[0].name=ca,extraVolumes[0].configMap.name=ca"),
        *("--set", "extraVolumeMounts[0].name=ca,extraVolumeMounts[0].mountPath=/ca"),
        *("--set", "extraEnv[0].name=SSL_CERT_FILE,extraEnv[0].value=/ca/ca.crt"),
    ]


def job_log(here: Namespace) -> str:
    """Return the log of all the Job's runs in order, read with the command from the notes."""
    (command,) = re.findall(r"kubectl .* logs .*", here.helm("status", "wh"))
    lines = run("sh", "-c", command).stdout.splitlines()
    return "".join(f"{line.partition(' ')[2]}\n" for line in lines)  # without the time stamps


def changes(here: Namespace) -> list[str]:
    """Return the requests that changed something at the Graph API."""
    time.sleep(0.5)  # it prints them twice a second
    return [line for line in here.kubectl("logs", "graph").splitlines() if line.startswith(("POST", "DELETE"))]


def install_error(here: Namespace, *options: str) -> str:
    """Run an installation or upgrade that must fail, and return helm's output."""
    done = run(
        "helm", "-n", here.name, "upgrade", "--install", "wh", str(CHART), *image_values(), *options, check=False
    )
    assert done.returncode != 0, done.stdout
    return done.stdout + done.stderr


def test_without_its_secret_nothing_is_installed(here: Namespace) -> None:
    """The Job would fail; the error names the Secret and the missing key."""
    assert f"the Secret {SECRET} has no key verify-token yet" in install_error(here, *subscribing(here))
    here.make_secret()
    error = install_error(here, *subscribing(here), "--set", "subscribe.existingSecret=")
    assert f"the Secret {SECRET} has no key access-token yet" in error
    assert here.kubectl("get", "service,statefulset,job", "-l", "app.kubernetes.io/instance=wh") == ""


def test_from_nothing_to_subscribed(here: Namespace) -> None:
    """One `helm install` is enough: while the pod starts, the Job fails and is retried."""
    started = time.monotonic()
    notes = here.install(*subscribing(here))
    seconds = time.monotonic() - started
    assert f"kubectl --namespace {here.name} logs --selector job-name={JOB}" in notes
    status = here.object("job", JOB)["status"]
    assert status["succeeded"] == 1
    log = job_log(here)
    assert f"app {APP}\n  now   nothing\n  then  {URL}: account_update, messages\n" in log
    assert "Done: Meta now has this registration." in log
    assert changes(here) == [f"POST {APP}/subscriptions", f"POST {ACCOUNT}/subscribed_apps"]
    assert "handshake verified" in here.kubectl("logs", POD)
    assert here.restarts() == 0
    print(f"from helm install to subscribed: {seconds:.0f} s, {status.get('failed', 0)} runs failed before")


def test_the_pod_has_no_privileges(here: Namespace) -> None:
    """It passed Pod Security `restricted`, which the namespace enforces; no token is mounted, no secret is logged."""
    (pod, *_) = here.objects("pod", f"job-name={JOB}")
    assert pod["spec"]["automountServiceAccountToken"] is False
    assert {volume["name"] for volume in pod["spec"]["volumes"]} == {"credentials", "ca"}
    token = base64.b64decode(here.object("secret", TOKEN)["data"]["access-token"]).decode()
    for secret in (here.secret, here.token, token):
        assert secret not in job_log(here)


def test_the_doctor_in_the_pod(here: Namespace) -> None:
    """It runs the checks that are possible there and says how to run the others; a `helm test` before is no problem."""
    here.helm("test", "wh")
    report = json.loads(here.kubectl("exec", POD, "--", "whatsapp-webhook", "doctor", "--json"))
    states = {each["check"]: each["state"] for each in report["findings"]}
    assert report["ok"], report
    for check in ("configuration", "credentials", "service", "direct", "inbox"):
        assert states[check] == "ok", report
    assert {check for check, state in states.items() if state == "unknown"} == {"counters", "url", "app"}
    remedies = [each["remedy"] for each in report["findings"] if each["check"] in ("url", "app")]
    assert all("whatsapp-webhook doctor --url URL" in remedy for remedy in remedies)


def test_an_upgrade_changes_nothing_at_meta(here: Namespace) -> None:
    """A new Job runs, and finds the registration complete."""
    before, first = changes(here), here.object("job", JOB)["metadata"]["uid"]
    here.install(*subscribing(here), "--set", "log.level=debug")
    assert here.object("job", JOB)["metadata"]["uid"] != first
    assert "Nothing to change: Meta already has this registration." in job_log(here)
    assert changes(here) == before


def test_another_registered_url_is_not_replaced(here: Namespace) -> None:
    """The upgrade fails, the Job's log says why, and the receiver keeps running; `replace=true` allows it."""
    before = changes(here)
    error = install_error(here, *subscribing(here, OTHER, "backoffLimit=0"))
    assert JOB in error
    assert f"The app sends to {URL}" in job_log(here)
    assert "--replace" in job_log(here)
    assert changes(here) == before
    here.wait_ready()
    here.install(*subscribing(here, OTHER, "replace=true"))
    assert changes(here) == [*before, f"POST {APP}/subscriptions"]
    print(f"helm's output:\n{error}")


def test_a_permanent_failure_is_not_retried(here: Namespace) -> None:
    """For example another registered URL: the upgrade fails immediately, whatever `backoffLimit` is."""
    before, started = changes(here), time.monotonic()
    install_error(here, *subscribing(here, URL))
    assert time.monotonic() - started < 30
    assert job_log(here).count(f"The app sends to {OTHER}") == 1
    assert changes(here) == before


def test_a_temporary_failure_is_retried(here: Namespace) -> None:
    """For example a host that is not reachable yet; the logs of all runs are preserved."""
    here.kubectl("delete", "service", "graph")
    command = ["helm", "-n", here.name, "upgrade", "wh", str(CHART), *image_values(), *subscribing(here, OTHER)]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL) as upgrade:
        until(
            lambda: "could not be resolved" in here.kubectl("logs", "-l", f"job-name={JOB}", check=False), "none failed"
        )
        assert upgrade.poll() is None
        _, service = pods.graph("graph", "meta")
        here.kubectl("apply", "-f", "-", text=json.dumps(service))
        assert upgrade.wait(240) == 0
    log = job_log(here)
    assert 0 <= log.index("could not be resolved") < log.index("Nothing to change")


def test_an_uninstall_changes_nothing_at_meta(here: Namespace) -> None:
    """`unsubscribe` removes the registration; the Job stays for its log until its TTL expires."""
    before = changes(here)
    here.helm("uninstall", "wh", "--wait")
    assert changes(here) == before
    assert here.object("job", JOB)["spec"]["ttlSecondsAfterFinished"] > 0
