"""The README's commands for a cluster, as they stand; what a reader sets is set here, and `simulate` is Meta."""

import os
import re
import secrets
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from cluster.kube import POD, SECRET, run

pytestmark = [pytest.mark.needs("cluster", "crds"), pytest.mark.timeout(600)]
ROOT = Path(__file__).parents[2]
PLAY = f'kubectl -n "$NAMESPACE" exec {POD} -- whatsapp-webhook simulate http://127.0.0.1:8080/webhooks --only-test'
LOOK = f'kubectl -n "$NAMESPACE" get secret {SECRET} -o jsonpath="{{.data.verify-token}}" | base64 -d'


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
    yield {"NAMESPACE": name, "IMAGE": image, "HOST": "wa.example.com", "APP_SECRET": "s", "VERIFY_TOKEN": "t"}
    run("kubectl", "delete", "namespace", name, "--wait=true", "--timeout=120s")


def test_the_readme(reader: dict[str, str]) -> None:
    """From nothing to the first event, a rotation, a backup, and what watches it."""
    install, secret, expose, see, monitor = blocks("README.md", "On Kubernetes")
    (rotate,) = blocks("docs/kubernetes.md", "Rotation")
    (backup,) = blocks("docs/kubernetes.md", "Backup, restore and moving")
    steps = [install, secret, expose, PLAY, see, "echo ROTATION", rotate, LOOK]
    steps += ["directory=$PWD; cd $(mktemp -d)", backup, "ls -l inbox.db; cd $directory", monitor]
    command = ["bash", "-euo", "pipefail", "-c", "\n".join(steps)]
    done = subprocess.run(command, cwd=ROOT, env=os.environ | reader, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    before, after = done.stdout.split("ROTATION")
    assert "com.whatsapp.message.text" in before
    assert re.search(r"[0-9a-f]{32}\nt\b", after)
