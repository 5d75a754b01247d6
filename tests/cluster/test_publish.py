"""A release, played from the pushed image to the first event: everything that needs no hosted runner.

The registry is on this machine, and the node pulls from it, so the node must be this machine too.
"""

import json
import os
import socket
import subprocess
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from tests.cluster.kube import SELF, Namespace, run
from tests.support.server import free_port, until

pytestmark = [pytest.mark.needs("cluster", "image", "release_tools"), pytest.mark.timeout(600)]
ROOT = Path(__file__).parents[2]
SOURCE = "https://github.com/Example/whatsapp-webhook"


class Registry:
    """An OCI registry on loopback, with its files in a directory."""

    def __init__(self, directory: Path) -> None:
        self.address = f"127.0.0.1:{free_port()}"
        settings = directory / "registry.json"  # JSON is YAML
        storage = {"filesystem": {"rootdirectory": str(directory / "registry")}}
        http = {"addr": self.address}
        settings.write_text(json.dumps({"version": 0.1, "log": {"level": "error"}, "storage": storage, "http": http}))
        environ = os.environ | {"OTEL_TRACES_EXPORTER": "none"}
        with (directory / "registry.log").open("wb") as log:
            self.process = subprocess.Popen(["registry", "serve", settings], env=environ, stdout=log, stderr=log)
        until(self._listens, "the registry does not listen")

    def _listens(self) -> bool:
        host, _, port = self.address.rpartition(":")
        with suppress(OSError), socket.create_connection((host, int(port))):
            return True
        return False

    def push(self, archive: str, name: str) -> str:
        """Push a docker-archive with another label, and return the digest.

        The kubelet remembers from where it pulled an image, by the image's id. With the same id no other test could use
        the image that was loaded on the node without a registry.
        """
        run("crane", "push", "--insecure", archive, f"{self.address}/{name}")
        return self.label(name, "released", name)

    def label(self, name: str, label: str, new_name: str) -> str:
        """Push an image again with a label more, and return the digest."""
        place, new_place = f"{self.address}/{name}", f"{self.address}/{new_name}"
        run("crane", "mutate", "--insecure", place, "--label", f"{label}=true", "--tag", new_place)
        return run("crane", "digest", "--insecure", new_place).stdout.strip()


class Release:
    """What was published, and where."""

    def __init__(self, directory: Path, registry: Registry) -> None:
        self.registry = registry
        self.out = directory / "dist"
        self.key = str(directory / "release")
        self.image = f"{registry.address}/whatsapp-webhook"
        for name in ("release", "stranger"):
            _cosign("generate-key-pair", "--output-key-prefix", str(directory / name))
        self.stranger = str(directory / "stranger")
        self.digest = registry.push(os.environ["TEST_IMAGE_ARCHIVE"], "whatsapp-webhook:new")
        values = {
            "IMAGE": self.image,
            "DIGEST": self.digest,
            "CHARTS": f"{registry.address}/charts",
            "SOURCE": SOURCE,
            "PUBLISH_OPTIONS": f"--rehearse --key {self.key} --out {self.out}",
        }
        environ = {name: value for name, value in os.environ.items() if not name.startswith("GITHUB_")}
        self.output = subprocess.run(
            ["make", "--no-print-directory", "publish", *(f"{name}={value}" for name, value in values.items())],
            cwd=ROOT,
            env=environ | {"COSIGN_PASSWORD": ""},
            capture_output=True,
            text=True,
            check=False,
        )
        assert self.output.returncode == 0, self.output.stderr
        self.references = json.loads((self.out / "release.json").read_text())

    def is_signed(self, reference: str, key: str, *options: str) -> bool:
        """Return whether *reference* has a signature by a key; with options of verify-attestation, an attestation."""
        command = "verify-attestation" if options else "verify"
        checked = ["--key", f"{key}.pub", "--insecure-ignore-tlog=true", "--allow-http-registry"]
        return _cosign(command, *options, *checked, reference, check=False).returncode == 0


def _cosign(*arguments: str, check: bool = True) -> subprocess.CompletedProcess[str]:
    os.environ.setdefault("COSIGN_PASSWORD", "")
    return run("cosign", *arguments, check=check)


@pytest.fixture(scope="module")
def release(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Release]:
    directory = tmp_path_factory.mktemp("release")
    registry = Registry(directory)
    try:
        yield Release(directory, registry)
    finally:
        registry.process.terminate()
        registry.process.wait()


def test_image_chart_and_bills_are_signed(release: Release) -> None:
    """By the release's key and by no other; another image under the same name is not."""
    for name in ("image", "chart"):
        assert release.is_signed(release.references[name], release.key)
        assert not release.is_signed(release.references[name], release.stranger)
    for kind in ("spdxjson", "cyclonedx"):
        assert release.is_signed(release.references["image"], release.key, "--type", kind)
        assert not release.is_signed(release.references["image"], release.stranger, "--type", kind)
    other = release.registry.label("whatsapp-webhook:new", "stranger", "whatsapp-webhook:new")
    assert other != release.digest
    assert not release.is_signed(f"{release.image}@{other}", release.key)


def test_the_released_chart_installs_the_signed_image(release: Release) -> None:
    """From the registry alone: handshake and notification, with the image that was signed."""
    version = release.references["version"]
    with Namespace() as here:
        here.make_secret()
        chart = f"oci://{release.registry.address}/charts/whatsapp-webhook"
        mode = "persistence.accessMode=ReadWriteOnce"  # a one-node cluster may have few volumes of the stricter mode
        options = ["--plain-http", "--wait", "--timeout", "120s"]
        here.helm("install", "wh", chart, "--version", version, "--set", mode, *options)
        pod = here.object("pod", "wh-whatsapp-webhook-0")
        assert pod["spec"]["containers"][0]["image"] == f"{release.image}@{release.digest}"
        assert here.handshake(here.token)
        assert not here.handshake("another-token")
        here.kubectl("exec", here.target, "--", "whatsapp-webhook", "simulate", f"{SELF}:8080/webhooks", "--only-test")
        assert len(here.kept()) == 1


def test_a_digest_that_is_none_is_refused(release: Release) -> None:
    """Before anything is pushed, with what a digest looks like."""
    options = ["IMAGE=127.0.0.1/x", "DIGEST=latest", "CHARTS=127.0.0.1/x", f"SOURCE={SOURCE}"]
    done = subprocess.run(["make", "publish", *options], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode != 0
    assert "'latest' is not a digest: it is sha256: and 64 hex digits" in done.stderr
    assert "x" not in run("crane", "catalog", "--insecure", release.registry.address).stdout.split()
