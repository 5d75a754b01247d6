"""The README's commands for a cluster, as they stand; what a reader sets is set here, and `simulate` is Meta."""

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
PLAY = f'kubectl -n "$NAMESPACE" exec {POD} -- whatsapp-webhook simulate http://127.0.0.1:8080/webhooks --only-test'
READY = f'kubectl -n "$NAMESPACE" wait --for=condition=Ready pod/{POD} --timeout=120s'


def blocks(page: str, section: str) -> list[str]:
    """Give the shell blocks of a section, but for the one in which the reader says what is theirs."""
    text = re.split(rf"^## {section}$", (ROOT / page).read_text(), flags=re.MULTILINE)[1]
    text = re.split(r"^## ", text, flags=re.MULTILINE)[0]
    found = re.findall(r"^```sh\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)
    return [block for block in found if "export" not in block]


@pytest.fixture
def reader() -> Iterator[dict[str, str]]:
    name = f"test-{secrets.token_hex(4)}"
    image = os.environ["TEST_IMAGE"]
    theirs = {"HOST": "wa.example.com", "APP_SECRET": "0123456789abcdef" * 2}
    yield {"NAMESPACE": name, "IMAGE": image, "NS": name, "POD": POD} | theirs
    run("kubectl", "delete", "namespace", name, "--wait=true", "--timeout=120s")


def test_the_readme(reader: dict[str, str]) -> None:
    """From nothing to the first event, rotations, a backup that is restored, an upgrade, the end."""
    install, secret, expose, see, monitor = blocks("README.md", "On Kubernetes")
    token, end_token, app_secret, end_app_secret = blocks("docs/kubernetes.md", "Rotation")
    backup, restore = blocks("docs/kubernetes.md", "Backup, restore and moving")
    questions, _ = blocks("docs/runbook.md", "First look")
    upgrade, uninstall = blocks("docs/kubernetes.md", "Upgrade, rollback, uninstall")
    said = [
        *run_blocks(reader, install, secret, expose, PLAY, see),
        *run_blocks(reader, token, look("verify-token"), end_token, look("verify-token")),
        *run_blocks(
            reader | {"NEW_APP_SECRET": "fedcba9876543210" * 2}, app_secret, look("app-secret"), end_app_secret
        ),
        *run_blocks(reader, "cd $(mktemp -d)", backup, PLAY, restore, READY, see),
        *run_blocks(reader, "set +e", questions, "set -e"),
        *run_blocks(reader, monitor, READY, upgrade, uninstall, 'kubectl -n "$NAMESPACE" get all,pvc,secret'),
    ]
    assert said[4].count("com.whatsapp.message.text") == 2, "of `helm test`, and the reader's own"
    assert re.search(r"enter this at Meta: [0-9a-f]{32}$", said[5])
    assert re.fullmatch(r"[0-9a-f]{32}\n[0-9a-f]{32}", said[6])
    assert re.fullmatch(r"[0-9a-f]{32}", said[8])
    assert said[10] == f"{'fedcba9876543210' * 2}\n{'0123456789abcdef' * 2}"
    assert said[17].count("com.whatsapp.message.text") == 2, "what came after the backup is not in it"
    assert '"ready": true' in said[19]
    assert "whatsapp_webhook_build_info" in said[19]
    assert said[25] == ""


def look(key: str) -> str:
    """Make the command that shows a value of the Secret."""
    return f'kubectl -n "$NAMESPACE" get secret {SECRET} -o jsonpath="{{.data.{key}}}" | base64 -d'


def run_blocks(reader: dict[str, str], *steps: str) -> list[str]:
    """Run shell blocks one after the other in one shell; gives what each printed."""
    mark = "----- the next one -----"
    text = f"\necho '{mark}'\n".join(steps)
    command = ["bash", "-euo", "pipefail", "-c", text]
    done = subprocess.run(command, cwd=ROOT, env=os.environ | reader, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return [said.strip() for said in done.stdout.split(mark)]
