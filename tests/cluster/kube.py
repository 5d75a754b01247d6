"""A namespace in a real cluster, with a release of the chart."""

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
    """Run a program; fail with its output if it fails."""
    done = subprocess.run(command, input=text, capture_output=True, text=True, check=False)
    assert not check or done.returncode == 0, f"{' '.join(command)}\n{done.stdout}\n{done.stderr}"
    return done


def image_values() -> list[str]:
    """Return helm's options for the image in TEST_IMAGE, which is `repository:tag`."""
    image = os.environ["TEST_IMAGE"].removeprefix("docker.io/library/")
    version = yaml.safe_load((CHART / "Chart.yaml").read_text())["appVersion"]
    if image == f"whatsapp-webhook:{version}":  # the chart's default
        return []
    repository, _, tag = image.rpartition(":")
    return ["--set", f"image.repository={repository},image.tag={tag}"]


class Load(NamedTuple):
    """The result of load: the number of each answer, the longest time without a 200, and ids of messages.

    *acknowledged* were answered 200; the connections of *unanswered* ones were closed without an answer.
    """

    answers: dict[str, int]
    gap: float
    acknowledged: list[str]
    unanswered: list[str]


class Namespace:
    """A namespace that enforces a level of Pod Security."""

    def __init__(self, level: str = "restricted") -> None:
        self.name = f"test-{secrets.token_hex(4)}"
        self.level = level
        self.secret = secrets.token_hex(16)
        self.token = "the-verify-token"
        self.target = POD  # the pod in which commands run; of a Deployment, any of its pods
        self._loads = 0

    def __enter__(self) -> Self:
        run("kubectl", "create", "namespace", self.name)
        run("kubectl", "label", "namespace", self.name, f"pod-security.kubernetes.io/enforce={self.level}")
        return self

    def __exit__(self, *_raised: object) -> None:
        run("kubectl", "delete", "namespace", self.name, "--wait=true", "--timeout=120s")

    def kubectl(self, *arguments: str, text: str | None = None, check: bool = True) -> str:
        """Run kubectl in the namespace, and return its output."""
        return run("kubectl", "-n", self.name, *arguments, text=text, check=check).stdout

    def kubectl_error(self, *arguments: str, text: str | None = None) -> str:
        """Run kubectl in the namespace, and return its error output, whether it fails or not."""
        return run("kubectl", "-n", self.name, *arguments, text=text, check=False).stderr

    def helm(self, *arguments: str, check: bool = True) -> str:
        """Run helm in the namespace, and return its output."""
        return run("helm", "-n", self.name, *arguments, check=check).stdout

    def install(self, *options: str) -> str:
        """Install or upgrade the chart as `wh`, and return the notes."""
        return self.helm("upgrade", "--install", "wh", str(CHART), *image_values(), *options)

    def make_secret(self) -> None:
        """Create the Secret as NOTES.txt says."""
        literals = f"--from-literal=verify-token={self.token}", f"--from-literal=app-secret={self.secret}"
        self.kubectl("create", "secret", "generic", SECRET, *literals)

    def rotate(self, **values: str) -> None:
        """Patch the Secret."""
        data = {name.replace("_", "-"): value for name, value in values.items()}
        self.kubectl("patch", "secret", SECRET, "-p", json.dumps({"stringData": data}))

    def touch(self) -> None:
        """Make the kubelet update the pod's volumes immediately, by changing an annotation."""
        self.kubectl("annotate", "pod", POD, "--overwrite", f"touched-at={time.time()}")

    def wait_ready(self, seconds: int = 120) -> None:
        """Wait until the pod is ready."""
        until(lambda: self.kubectl("get", "pod", POD, check=False) != "", "no pod")
        self.kubectl("wait", "--for=condition=Ready", f"pod/{POD}", f"--timeout={seconds}s")

    def restarts(self) -> int:
        """Return how often the container was restarted."""
        return int(self.kubectl("get", "pod", POD, "-o", "jsonpath={.status.containerStatuses[0].restartCount}"))

    def uid(self) -> str:
        """Return the uid of the pod; empty if there is none."""
        return self.kubectl("get", "pod", POD, "-o", "jsonpath={.metadata.uid}", check=False)

    def get(self, url: str) -> str:
        """Send a GET from within the pod; return status and body, or nothing while its container is starting."""
        program = (
            "import sys,urllib3; a=urllib3.request('GET', sys.argv[1]); print(a.status); print(a.data.decode(), end='')"
        )
        return self.kubectl("exec", self.target, "--", "python", "-c", program, url, check=False)

    def handshake(self, token: str) -> bool:
        """Return whether the pod accepts this verify token."""
        query = f"hub.mode=subscribe&hub.challenge=1&hub.verify_token={token}"
        return self.get(f"{SELF}:8080/webhooks?{query}").startswith("200")

    def metric(self, sample: str) -> float:
        """Return the value of a sample, named as on the metrics page; 0 if there is none."""
        page = self.get(f"{SELF}:9090/metrics")
        return next(
            (float(line.rpartition(" ")[2]) for line in page.splitlines() if line.startswith(sample + " ")), 0.0
        )

    def object(self, kind: str, name: str = "wh-whatsapp-webhook") -> dict[str, Any]:
        """Return an object of the Kubernetes API."""
        parsed: dict[str, Any] = json.loads(self.kubectl("get", kind, name, "-o", "json"))
        return parsed

    def objects(self, kind: str, labels: str) -> list[dict[str, Any]]:
        """Return the objects with these labels."""
        parsed: list[dict[str, Any]] = json.loads(self.kubectl("get", kind, "-l", labels, "-o", "json"))["items"]
        return parsed

    def simulate(self) -> None:
        """Run `simulate` in the pod against itself; every answer must be the expected one."""
        self.kubectl("exec", self.target, "--", "whatsapp-webhook", "simulate", f"{SELF}:8080/webhooks")

    def kept(self) -> set[str]:
        """Return Meta's ids of all stored messages."""
        text = self.kubectl("exec", self.target, "--", "whatsapp-webhook", "events", "list", "--json")
        return {json.loads(line)["id"].split(":")[1] for line in text.splitlines()}

    @contextmanager
    def load(
        self, seconds: float, *, rate: float = 100, handshakes: float = 10, after: float | None = None
    ) -> Iterator[list[Load]]:
        """Send load through the Service from a separate pod; the yielded list has the result once the block exited.

        The load lasts *seconds*, or until *after* seconds after the end of the block, whichever is earlier.
        """
        self._loads += 1
        name = f"load-{self._loads}"
        pod = pods.load(
            name,
            URL=f"http://wh-whatsapp-webhook.{self.name}/webhooks",
            TOKEN=self.token,
            SECRET=self.secret,
            RATE=str(rate),
            HANDSHAKES=str(handshakes),
            SECONDS=str(seconds),
        )
        self.kubectl("apply", "-f", "-", text=json.dumps(pod))
        self.kubectl("wait", "--for=condition=Ready", f"pod/{name}", "--timeout=60s")
        time.sleep(2)
        results: list[Load] = []
        yield results
        if after is not None:
            time.sleep(after)
            stop = "import os, signal; os.kill(1, signal.SIGUSR1)"
            self.kubectl("exec", name, "--", "python", "-c", stop, check=False)  # fails if the pod exits meanwhile
        results.append(Load(**json.loads(self._output(name, seconds + 60))))
        self.kubectl("delete", "pod", name)

    def kill_first_process(self, of: dict[str, Any]) -> None:
        """Kill the first process of another namespace's pod from its node, because it can't be killed from within."""
        self.kubectl("apply", "-f", "-", text=json.dumps(pods.killer("killer", of)))
        assert self._output("killer", 60) == "killed\n"

    def _output(self, pod: str, timeout: float) -> str:
        succeeded = "--for=jsonpath={.status.phase}=Succeeded"
        self.kubectl("wait", succeeded, f"pod/{pod}", f"--timeout={timeout:.0f}s")
        return self.kubectl("logs", pod)


def until(condition: Any, message: str, timeout: float = 120) -> float:
    """Wait until *condition* is true, and return the seconds that it took; fail with *message* after *timeout*."""
    started = time.monotonic()
    while not condition():
        assert time.monotonic() < started + timeout, message
        time.sleep(0.2)
    return time.monotonic() - started
