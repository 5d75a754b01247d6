"""Runs the README's commands for a cluster unchanged; the reader's values are set here, and `simulate` acts as Meta."""

import os
import re
import secrets
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.cluster.kube import POD, SECRET, run

pytestmark = [pytest.mark.needs("cluster", "crds"), pytest.mark.timeout(600)]
ROOT = Path(__file__).parents[2]
SIMULATE = f'kubectl -n "$NAMESPACE" exec {POD} -- whatsapp-webhook simulate http://127.0.0.1:8080/webhooks --only-test'
READY = f'kubectl -n "$NAMESPACE" wait --for=condition=Ready pod/{POD} --timeout=120s'


def blocks(page: str, section: str) -> list[str]:
    """Return the shell blocks of a section, except the one in which the reader exports values."""
    text = re.split(rf"^## {section}$", (ROOT / page).read_text(), flags=re.MULTILINE)[1]
    text = re.split(r"^## ", text, flags=re.MULTILINE)[0]
    shell_blocks = re.findall(r"^```sh\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)
    return [block for block in shell_blocks if "export" not in block]


@pytest.fixture
def reader() -> Iterator[dict[str, str]]:
    name = f"test-{secrets.token_hex(4)}"
    image = os.environ["TEST_IMAGE"]
    values = {"HOST": "wa.example.com", "APP_SECRET": "0123456789abcdef" * 2}
    yield {"NAMESPACE": name, "IMAGE": image, "NS": name, "POD": POD} | values
    run("kubectl", "delete", "namespace", name, "--wait=true", "--timeout=120s")


def test_the_readme(reader: dict[str, str]) -> None:
    """Installation, first event, rotations, backup and restore, runbook queries, upgrade and uninstall."""
    install, secret, expose, see = blocks("README.md", "On Kubernetes")
    (monitor,) = blocks("docs/kubernetes.md", "Destinations, metrics and alerts")
    token, end_token, app_secret, end_app_secret = blocks("docs/kubernetes.md", "Rotation")
    backup, restore = blocks("docs/kubernetes.md", "Backup, restore and moving")
    questions, _ = blocks("docs/runbook.md", "First look")
    upgrade, uninstall = blocks("docs/kubernetes.md", "Upgrade, rollback, uninstall")
    outputs = [
        *run_blocks(reader, install, secret, expose, SIMULATE, see),
        *run_blocks(reader, token, look("verify-token"), end_token, look("verify-token")),
        *run_blocks(
            reader | {"NEW_APP_SECRET": "fedcba9876543210" * 2}, app_secret, look("app-secret"), end_app_secret
        ),
        *run_blocks(reader, "cd $(mktemp -d)", backup, SIMULATE, restore, READY, see),
        *run_blocks(reader, "set +e", questions, "set -e"),
        *run_blocks(reader, monitor, READY, upgrade, uninstall, 'kubectl -n "$NAMESPACE" get all,pvc,secret'),
    ]
    assert outputs[4].count("com.whatsapp.message.text") == 2, "one from `helm test` and one from `simulate`"
    assert re.search(r"enter this at Meta: [0-9a-f]{32}$", outputs[5])
    assert re.fullmatch(r"[0-9a-f]{32}\n[0-9a-f]{32}", outputs[6])
    assert re.fullmatch(r"[0-9a-f]{32}", outputs[8])
    assert outputs[10] == f"{'fedcba9876543210' * 2}\n{'0123456789abcdef' * 2}"
    assert outputs[17].count("com.whatsapp.message.text") == 2, "the event after the backup is not restored"
    assert '"ready": true' in outputs[19]
    assert "whatsapp_webhook_build_info" in outputs[19]
    assert outputs[25] == ""


def look(key: str) -> str:
    """Return the command that prints a value of the Secret."""
    return f'kubectl -n "$NAMESPACE" get secret {SECRET} -o jsonpath="{{.data.{key}}}" | base64 -d'


def run_blocks(reader: dict[str, str], *steps: str) -> list[str]:
    """Run shell blocks one after the other in one shell; return the output of each."""
    separator = "----- next block -----"
    script = f"\necho '{separator}'\n".join(steps)
    command = ["bash", "-euo", "pipefail", "-c", script]
    done = subprocess.run(command, cwd=ROOT, env=os.environ | reader, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return [output.strip() for output in done.stdout.split(separator)]
