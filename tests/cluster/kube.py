"""A namespace of a real cluster, a release in it, and what is asked of them."""

import json
import os
import secrets
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple, Self

import yaml

from tests.cluster import pods

CHART = Path(__file__).parents[2] / "deploy" / "helm"
POD = "wh-whatsapp-webhook-0"
SECRET = "wh-whatsapp-webhook-credentials"
SELF = "http://127.0.0.1"


def run(*command: str, text: str | None = None, check: bool = True) -> subprocess.CompletedProcess[str]:
    """Run a program; fails with what it says."""
    done = subprocess.run(command, input=text, capture_output=True, text=True, check=False)
    assert not check or done.returncode == 0, f"{' '.join(command)}\n{done.stdout}\n{done.stderr}"
    return done


def image_values() -> list[str]:
    """Say which image, as helm's options: TEST_IMAGE is `repository:tag`."""
    image = os.environ["TEST_IMAGE"].removeprefix("docker.io/library/")
    version = yaml.safe_load((CHART / "Chart.yaml").read_text())["appVersion"]
    if image == f"whatsapp-webhook:{version}":  # what the chart takes without values
        return []
    repository, _, tag = image.rpartition(":")
    return ["--set", f"image.repository={repository},image.tag={tag}"]


class Load(NamedTuple):
    """What came of some load: how many of each answer, the longest time without a 200, ids that were answered 200."""

    answers: dict[str, int]
    gap: float
    acknowledged: list[str]


class Namespace:
    """A namespace that enforces a level of Pod Security."""

    def __init__(self, level: str = "restricted") -> None:
        self.name = f"test-{secrets.token_hex(4)}"
        self.level = level
        self.secret = secrets.token_hex(16)
        self.token = "the-verify-token"
        self.asked = POD  # which pod is asked; a Deployment's any
        self._loads = 0

    def __enter__(self) -> Self:
        run("kubectl", "create", "namespace", self.name)
        run("kubectl", "label", "namespace", self.name, f"pod-security.kubernetes.io/enforce={self.level}")
        return self

    def __exit__(self, *_raised: object) -> None:
        run("kubectl", "delete", "namespace", self.name, "--wait=true", "--timeout=120s")

    def kubectl(self, *arguments: str, text: str | None = None, check: bool = True) -> str:
        """Run kubectl in the namespace, and give what it prints."""
        return run("kubectl", "-n", self.name, *arguments, text=text, check=check).stdout

    def tried(self, *arguments: str, text: str | None = None) -> str:
        """Run kubectl in the namespace, and give what it says where it was refused."""
        return run("kubectl", "-n", self.name, *arguments, text=text, check=False).stderr

    def helm(self, *arguments: str, check: bool = True) -> str:
        """Run helm in the namespace, and give what it prints."""
        return run("helm", "-n", self.name, *arguments, check=check).stdout

    def install(self, *options: str) -> str:
        """Install the chart as `wh`, or upgrade it, and give the notes."""
        return self.helm("upgrade", "--install", "wh", str(CHART), *image_values(), *options)

    def make_secret(self) -> None:
        """Make the Secret as NOTES.txt says."""
        literals = f"--from-literal=verify-token={self.token}", f"--from-literal=app-secret={self.secret}"
        self.kubectl("create", "secret", "generic", SECRET, *literals)

    def rotate(self, **values: str) -> None:
        """Patch the Secret."""
        data = {name.replace("_", "-"): value for name, value in values.items()}
        self.kubectl("patch", "secret", SECRET, "-p", json.dumps({"stringData": data}))

    def touch(self) -> None:
        """Have the kubelet look at the pod's volumes now."""
        self.kubectl("annotate", "pod", POD, "--overwrite", f"looked-at={time.time()}")

    def wait_ready(self, seconds: int = 120) -> None:
        """Wait until the pod is ready."""
        until(lambda: self.kubectl("get", "pod", POD, check=False) != "", "no pod")
        self.kubectl("wait", "--for=condition=Ready", f"pod/{POD}", f"--timeout={seconds}s")

    def restarts(self) -> int:
        """Say how often the container was started again."""
        return int(self.kubectl("get", "pod", POD, "-o", "jsonpath={.status.containerStatuses[0].restartCount}"))

    def uid(self) -> str:
        """Say which pod it is."""
        return self.kubectl("get", "pod", POD, "-o", "jsonpath={.metadata.uid}", check=False)

    def within(self, url: str) -> str:
        """Ask the pod itself; gives the body, whatever the status, and nothing while its container is started."""
        program = (
            "import sys,urllib3; a=urllib3.request('GET', sys.argv[1]); print(a.status); print(a.data.decode(), end='')"
        )
        return self.kubectl("exec", self.asked, "--", "python", "-c", program, url, check=False)

    def handshake(self, token: str) -> bool:
        """Say whether the pod takes this verify token."""
        query = f"hub.mode=subscribe&hub.challenge=1&hub.verify_token={token}"
        return self.within(f"{SELF}:8080/webhooks?{query}").startswith("200")

    def metric(self, sample: str) -> float:
        """Give the value of a sample, written as the metrics page writes it; 0 where there is none."""
        page = self.within(f"{SELF}:9090/metrics")
        return next(
            (float(line.rpartition(" ")[2]) for line in page.splitlines() if line.startswith(sample + " ")), 0.0
        )

    def object(self, kind: str, name: str = "wh-whatsapp-webhook") -> dict[str, Any]:
        """Give an object as the API has it."""
        found: dict[str, Any] = json.loads(self.kubectl("get", kind, name, "-o", "json"))
        return found

    def objects(self, kind: str, labels: str) -> list[dict[str, Any]]:
        """Give the objects that have the labels."""
        found: list[dict[str, Any]] = json.loads(self.kubectl("get", kind, "-l", labels, "-o", "json"))["items"]
        return found

    def play(self) -> None:
        """Have the pod play Meta to itself; every answer must be the right one."""
        self.kubectl("exec", self.asked, "--", "whatsapp-webhook", "simulate", f"{SELF}:8080/webhooks")

    def kept(self) -> set[str]:
        """Give Meta's ids of all messages that are kept."""
        text = self.kubectl("exec", self.asked, "--", "whatsapp-webhook", "events", "list", "--json")
        return {json.loads(line)["id"].split(":")[1] for line in text.splitlines()}

    @contextmanager
    def load(
        self, seconds: float, *, rate: float = 100, handshakes: float = 10, after: float | None = None
    ) -> Iterator[list[Load]]:
        """Send load through the Service from a pod of its own; the list has what came of it once the block ended.

        It goes on for *seconds*, or *after* so many from the end of the block, whichever comes first.
        """
        self._loads += 1
        name = f"load-{self._loads}"
        meta = pods.load(
            name,
            URL=f"http://wh-whatsapp-webhook.{self.name}/webhooks",
            TOKEN=self.token,
            SECRET=self.secret,
            RATE=str(rate),
            HANDSHAKES=str(handshakes),
            SECONDS=str(seconds),
        )
        self.kubectl("apply", "-f", "-", text=json.dumps(meta))
        self.kubectl("wait", "--for=condition=Ready", f"pod/{name}", "--timeout=60s")
        time.sleep(2)
        found: list[Load] = []
        yield found
        if after is not None:
            time.sleep(after)
            end = "import os, signal; os.kill(1, signal.SIGUSR1)"
            self.kubectl("exec", name, "--", "python", "-c", end, check=False)  # it may be killed as the pod ends
        found.append(Load(**json.loads(self._output(name, seconds + 60))))
        self.kubectl("delete", "pod", name)

    def kill_first_process(self, of: dict[str, Any]) -> None:
        """End the first process of another namespace's pod with -9, from its node: nobody can from within."""
        self.kubectl("apply", "-f", "-", text=json.dumps(pods.killer("killer", of)))
        assert self._output("killer", 60) == "killed\n"

    def _output(self, pod: str, patience: float) -> str:
        done = "--for=jsonpath={.status.phase}=Succeeded"
        self.kubectl("wait", done, f"pod/{pod}", f"--timeout={patience:.0f}s")
        return self.kubectl("logs", pod)


def until(condition: Any, otherwise: str, patience: float = 120) -> float:
    """Wait for *condition*, and give the seconds that it took; fail with *otherwise* where it does not come."""
    started = time.monotonic()
    while not condition():
        assert time.monotonic() < started + patience, otherwise
        time.sleep(0.2)
    return time.monotonic() - started
