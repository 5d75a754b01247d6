"""The chart's Job that registers the release at Meta: what it runs, what it may reach, which values are rejected."""

import json
import os
import stat
import subprocess
from pathlib import Path
from typing import Any

import click
import pytest

from service.config import SETTINGS
from tests.chart.helm import APART, CHART, INGRESS, POSTGRESQL, ROUTE, SUBSCRIBE, notes, one, rendered, validation_error

pytestmark = pytest.mark.needs("helm")
URL = "https://wa.example.com/webhooks"


def merged(**more: Any) -> dict[str, Any]:
    """Return the values that create the Job, with *more* in their block."""
    return {"subscribe": SUBSCRIBE["subscribe"] | more}


def pod(values: Any = SUBSCRIBE) -> dict[str, Any]:
    template = one("Job", values)["spec"]["template"]
    assert isinstance(template, dict)
    return template


def program(values: Any = SUBSCRIBE) -> dict[str, Any]:
    (container,) = pod(values)["spec"]["containers"]
    assert isinstance(container, dict)
    return container


def environ(values: Any = SUBSCRIBE) -> dict[str, str]:
    variables = [(each["name"], each["value"]) for each in program(values)["env"]]
    assert len(dict(variables)) == len(variables), "a variable is set twice"
    return dict(variables)


def test_there_is_no_job_by_default() -> None:
    """Nor a network policy for it, whatever its other values are."""
    assert rendered(merged(enabled=False)) == rendered()
    assert not [it for it in rendered() if it["metadata"]["name"].endswith("-subscribe")]


def test_the_job_runs_after_install_and_upgrade() -> None:
    """A Job is kept until the next one, for its log."""
    annotations = one("Job", SUBSCRIBE)["metadata"]["annotations"]
    assert annotations["helm.sh/hook"] == "post-install,post-upgrade"
    assert annotations["helm.sh/hook-delete-policy"] == "before-hook-creation"
    assert annotations["helm.sh/hook-output-log-policy"] == "hook-failed"


def test_a_failure_is_retried_within_helms_timeout() -> None:
    """Each attempt has its own pod, whose log is kept; all attempts and pauses fit into the deadline."""
    spec = one("Job", SUBSCRIBE)["spec"]
    assert spec["template"]["spec"]["restartPolicy"] == "Never"
    pauses = sum(10 * 2**number for number in range(spec["backoffLimit"]))
    assert pauses + 60 < spec["activeDeadlineSeconds"] < 300
    assert one("Job", merged(backoffLimit=0, activeDeadlineSeconds=1000000))["spec"]["activeDeadlineSeconds"] == 1000000


def test_a_wrong_configuration_is_not_retried() -> None:
    """The Job fails on the exit status for wrong options or a wrong configuration."""
    (rule,) = one("Job", SUBSCRIBE)["spec"]["podFailurePolicy"]["rules"]
    codes = {"containerName": program()["name"], "operator": "In", "values": [click.UsageError.exit_code]}
    assert rule == {"action": "FailJob", "onExitCodes": codes}


def test_the_job_runs_subscribe() -> None:
    """It has --yes, and the options and variables of the values."""
    assert program()["args"] == ["subscribe", "--yes"]
    more = merged(fields=["messages", "calls"], replace=True, dropOverrides=True)
    assert program(more)["args"] == ["subscribe", "--yes", "--fields=messages,calls", "--replace", "--drop-overrides"]
    values = merged(accounts=["1", "2"], graphUrl="https://graph.example.com", graphVersion="v25.0") | {
        "fields": ["calls"]
    }
    assert environ(values) == {
        "WEBHOOK_FIELDS": "calls",
        "WEBHOOK_CALLBACK_URL": URL,
        "WEBHOOK_APP_ID": "188559381496048",
        "WEBHOOK_ACCOUNTS": "1,2",
        "WEBHOOK_GRAPH_URL": "https://graph.example.com",
        "WEBHOOK_GRAPH_VERSION": "v25.0",
    }


@pytest.mark.parametrize(
    ("values", "url"),
    [
        (INGRESS, URL),
        (INGRESS | {"path": "/hook"}, "https://wa.example.com/hook"),
        ({"httpRoute": ROUTE["httpRoute"] | {"hostnames": ["a.b"]}}, "https://a.b/webhooks"),
        (INGRESS | {"subscribe": {"callbackUrl": "https://other.example.com/x"}}, "https://other.example.com/x"),
    ],
)
def test_the_url_has_the_host_of_ingress_or_http_route(values: Any, url: str) -> None:
    """Unless callbackUrl is set."""
    subscribe = SUBSCRIBE["subscribe"] | {"callbackUrl": ""} | values.get("subscribe", {})
    assert environ(values | {"subscribe": subscribe})["WEBHOOK_CALLBACK_URL"] == url


def test_the_job_does_not_get_the_inboxs_url() -> None:
    """Every variable is a setting, none is the inbox's, and only the credentials are mounted."""
    names = {setting.name: setting.default for setting in SETTINGS}
    for values in (SUBSCRIBE, APART | SUBSCRIBE):
        assert set(environ(values)) <= set(names)
        assert not [name for name in environ(values) if "INBOX" in name]
        assert [volume["name"] for volume in pod(values)["spec"]["volumes"]] == ["credentials"]
    assert environ()["WEBHOOK_GRAPH_URL"] == names["WEBHOOK_GRAPH_URL"]
    schema = json.loads((CHART / "values.schema.json").read_text())["properties"]["subscribe"]["properties"]
    assert schema["fields"]["$ref"] == "#/properties/fields"


def test_extra_values_apply_to_the_job() -> None:
    """For example a CA; but no variable is set twice."""
    values = SUBSCRIBE | {
        "extraEnv": [{"name": "SSL_CERT_FILE", "value": "/ca/ca.crt"}, {"name": "WEBHOOK_APP_ID", "value": "1"}],
        "extraEnvFrom": [{"secretRef": {"name": "x"}}],
        "extraVolumes": [{"name": "ca", "configMap": {"name": "ca"}}],
        "extraVolumeMounts": [{"name": "ca", "mountPath": "/ca"}],
        "podLabels": {"mesh": "off"},
        "podAnnotations": {"a": "b"},
        "nodeSelector": {"a": "b"},
    }
    template = pod(values)
    assert environ(values)["SSL_CERT_FILE"] == "/ca/ca.crt"
    assert environ(values)["WEBHOOK_APP_ID"] == "188559381496048"
    assert program(values)["envFrom"] == values["extraEnvFrom"]
    assert values["extraVolumes"][0] in template["spec"]["volumes"]
    assert values["extraVolumeMounts"][0] in program(values)["volumeMounts"]
    assert template["spec"]["nodeSelector"] == values["nodeSelector"]
    assert template["metadata"]["annotations"] == values["podAnnotations"]
    assert template["metadata"]["labels"]["mesh"] == "off"


def test_the_job_has_the_receivers_permissions() -> None:
    """The same image and user, and no token for the cluster."""
    receiver = one("StatefulSet", SUBSCRIBE)["spec"]["template"]["spec"]
    spec = pod()["spec"]
    for name in ("securityContext", "serviceAccountName", "automountServiceAccountToken", "enableServiceLinks"):
        assert spec[name] == receiver[name]
    for name in ("image", "imagePullPolicy", "securityContext"):
        assert program()[name] == receiver["containers"][0][name]
    assert spec["automountServiceAccountToken"] is False


def test_the_access_token_may_be_in_its_own_secret() -> None:
    """The receiver does not mount it. Otherwise it is in the credentials' Secret. Both are optional."""
    credentials = {"secret": {"name": "wh-whatsapp-webhook-credentials", "optional": True}}
    token = {"name": "system-user", "optional": True, "items": [{"key": "access-token", "path": "access-token"}]}
    for values, sources in (
        (SUBSCRIBE, [credentials]),
        (merged(existingSecret="system-user"), [credentials, {"secret": token}]),
    ):
        (volume,) = pod(values)["spec"]["volumes"]
        assert volume["projected"] == {"defaultMode": 0o440, "sources": sources}
        assert "system-user" not in json.dumps(one("StatefulSet", values))
    (mount,) = program()["volumeMounts"]
    (directory,) = [setting.default for setting in SETTINGS if setting.name == "WEBHOOK_CREDENTIALS_DIR"]
    assert mount == {"name": "credentials", "mountPath": directory, "readOnly": True}


def test_no_other_selector_matches_the_job() -> None:
    """It has its own component label: no Service selects it, and one network policy does."""
    assert pod()["metadata"]["labels"]["app.kubernetes.io/component"] == "subscribe"
    for values in (SUBSCRIBE, APART | SUBSCRIBE):
        specs = [it["spec"] for it in rendered(values) if it["kind"] in ("Service", "PodDisruptionBudget")]
        selectors = [spec["selector"].get("matchLabels", spec["selector"]) for spec in specs]
        assert all(each["app.kubernetes.io/component"] in ("receiver", "relay") for each in selectors)
        policies = [it["spec"]["podSelector"] for it in rendered(values) if it["kind"] == "NetworkPolicy"]
        components = [each["matchLabels"]["app.kubernetes.io/component"] for each in policies]
        assert components.count("subscribe") == 1


@pytest.mark.parametrize(
    "values", [SUBSCRIBE, POSTGRESQL | SUBSCRIBE, SUBSCRIBE | {"tracing": {"endpoint": "http://c:4318"}}]
)
def test_its_network_policy(values: Any) -> None:
    """It allows DNS and the Graph API's port, and no ingress. The receiver's policy is unchanged."""
    spec = one("NetworkPolicy", values, end="-subscribe")["spec"]
    assert spec["policyTypes"] == ["Ingress", "Egress"]
    assert spec["ingress"] == []
    names, graph = spec["egress"]
    assert names == {"ports": [{"port": 53, "protocol": "UDP"}, {"port": 53, "protocol": "TCP"}]}
    assert graph == {"ports": [{"port": 443}]}
    other = one("NetworkPolicy", values | merged(graphUrl="https://graph.example.com:8443"), end="-subscribe")["spec"]
    assert other["egress"][1] == {"ports": [{"port": 8443}]}
    receiver = one("NetworkPolicy", values, end="-webhook")
    assert receiver == one("NetworkPolicy", values | merged(enabled=False), end="-webhook")


def test_network_policy_values_apply_to_the_job() -> None:
    """ExtraEgress is added; networkPolicy.enabled removes it."""
    more = [{"ports": [{"port": 3128}]}]
    values = SUBSCRIBE | {"networkPolicy": {"extraEgress": more, "extraIngress": [{"ports": [{"port": 1}]}]}}
    spec = one("NetworkPolicy", values, end="-subscribe")["spec"]
    assert spec["egress"][-1:] == more
    assert spec["ingress"] == []
    kinds = [it["kind"] for it in rendered(SUBSCRIBE | {"networkPolicy": {"enabled": False}})]
    assert "NetworkPolicy" not in kinds


@pytest.mark.parametrize(
    ("values", "why"),
    [
        (merged(appId=""), "subscribe.appId is empty"),
        (merged(appId=188559381496048), "want string"),
        (merged(appId="my-app"), "pattern"),
        (merged(accounts=["shop"]), "pattern"),
        (merged(callbackUrl=""), "neither ingress nor httpRoute names a host"),
        (merged(callbackUrl="") | ROUTE, "neither ingress nor httpRoute names a host"),
        (
            merged(callbackUrl="") | {"httpRoute": ROUTE["httpRoute"] | {"hostnames": ["*.a.b"]}},
            "neither ingress nor httpRoute names a host",
        ),
        (merged(callbackUrl="http://wa.example.com/webhooks"), "Meta calls https only"),
        (merged(callbackUrl="wa.example.com/webhooks"), "Meta calls https only"),
        (merged(callbackUrl="https://a@wa.example.com/"), "pattern"),
        (merged(callbackUrl="https:///webhooks"), "Meta does not accept https:///webhooks"),
        (merged(callbackUrl="https://"), "Meta does not accept https://"),
        (merged(callbackUrl="https://h:99999/w"), "a port up to 65535"),
        (merged(callbackUrl="https://h/a+b"), "a path without + and quotes"),
        (merged(callbackUrl='https://h/a"b'), "a path without + and quotes"),
        (
            merged(fields=["calls"]) | {"fields": ["messages"]},
            "subscribe.fields does not name messages, which fields names",
        ),
        (
            SUBSCRIBE | {"extraEnv": [{"name": "WEBHOOK_ACCESS_TOKEN", "value": "x"}]},
            "set credentials.existingSecret or subscribe.existingSecret instead",
        ),
        (merged(graphUrl="http://graph.example.com"), "pattern"),
        (merged(graphUrl="https://graph.facebook.com/v26.0"), "pattern"),
        (merged(graphVersion="26"), "pattern"),
        (merged(fields=["mesages"]), "value must be one of"),
        (merged(backoffLimit=-1), "minimum"),
        (merged(activeDeadlineSeconds=0), "minimum"),
    ],
)
def test_values_that_cannot_work_are_rejected(values: Any, why: str) -> None:
    """Before anything is installed; the message says what to set."""
    assert why in validation_error(values)


def test_the_longest_name_fits() -> None:
    """A Job's name is a label of its pods, which has at most 63 characters."""
    (name,) = [
        it["metadata"]["name"] for it in rendered(SUBSCRIBE | {"fullnameOverride": "x" * 80}) if it["kind"] == "Job"
    ]
    assert len(name) <= 63


def command_in(text: str) -> str:
    """Return the shell command in the notes."""
    _, _, rest = text.partition("     value() {")
    command, _, _ = rest.partition("\n\n")
    assert command
    return "value() {" + command


@pytest.mark.parametrize(
    ("values", "expected", "arguments"),
    [
        ({}, "enter this URL and the verify token", "https://YOUR-HOST/webhooks --app APP-ID --account ACCOUNT-ID"),
        (
            INGRESS | {"fields": ["messages"]},
            "Or let a Job do it: set subscribe.enabled",
            f"{URL} --app APP-ID --account ACCOUNT-ID --fields messages",
        ),
        (
            merged(existingSecret="system-user", accounts=["3", "4"]),
            "logs --selector job-name=wh-whatsapp-webhook-subscribe",
            f"{URL} --app 188559381496048 --account 3 --account 4",
        ),
    ],
)
def test_the_notes_have_the_command(values: Any, expected: str, arguments: str, tmp_path: Path) -> None:
    """Pasted into a shell, it reads each value from its Secret, and passes none as an argument."""
    text = notes(values)
    assert expected in text
    assert ("enter this URL" in text) is not ("job-name" in text)
    assert "whatsapp-webhook doctor" in text
    secret = values.get("subscribe", {}).get("existingSecret", "wh-whatsapp-webhook-credentials")
    assert run(command_in(text), tmp_path).splitlines() == [
        f"subscribe {arguments}",
        "of wh-whatsapp-webhook-credentials verify-token",
        "of wh-whatsapp-webhook-credentials app-secret",
        f"of {secret} access-token",
    ]


def run(command: str, directory: Path) -> str:
    """Run *command* with stubs for kubectl and whatsapp-webhook, which print their arguments and secrets."""
    write(directory / "kubectl", 'printf "of %s %s" "$5" "$(echo "$7" | sed "s/.*data.\\(.*\\)}/\\1/")" | base64')
    show = '"$WEBHOOK_VERIFY_TOKEN" "$WEBHOOK_APP_SECRET" "$WEBHOOK_ACCESS_TOKEN"'
    write(directory / "whatsapp-webhook", f'printf "%s\\n" "$*" {show}')
    environ = os.environ | {"PATH": f"{directory}:{os.environ['PATH']}"}
    return subprocess.run(["sh", "-c", command], env=environ, capture_output=True, text=True, check=True).stdout


def write(file: Path, text: str) -> None:
    file.write_text(f"#!/bin/sh\n{text}\n")
    file.chmod(stat.S_IRWXU)


def test_the_notes_ask_for_an_ingress_only_without_a_callback_url() -> None:
    """If the URL is set, it is reachable by other means."""
    assert "This URL can't be reached from outside yet" in notes({})
    assert "This URL can't be reached from outside yet" not in notes(merged(enabled=False))
