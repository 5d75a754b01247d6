"""The addresses of the listeners: IPv4, IPv6 or both."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import urllib3

from service.loopback import is_loopback, unmapped
from tests.support.server import Server, run_command

# Runs in a network namespace that has ::1 and no IPv4 address at all.
_IN_NAMESPACE = """
import json, subprocess, sys
from pathlib import Path
from tests.support.server import until
import urllib3

def status(url):
    try:
        return urllib3.request("GET", url, timeout=2, retries=False).status
    except urllib3.exceptions.HTTPError:
        return 0

def run(*arguments):
    return subprocess.run([*command, *arguments], capture_output=True, check=False)

command = [sys.executable, "-m", "service"]
with open(sys.argv[1], "wb") as log:
    serving = [subprocess.Popen([*command, name], stdout=log, stderr=log) for name in ("serve", "relay")]
    try:
        until(lambda: status("http://[::1]:9090/readyz") == 200, "the receiver is not ready")
        until(lambda: status("http://[::1]:9091/readyz") == 200, "the relay is not ready")
        query = "hub.mode=subscribe&hub.challenge=1&hub.verify_token=the-verify-token"
        found = {
            "handshake": status(f"http://[::1]:8080/webhooks?{query}"),
            "IPv4": status("http://127.0.0.1:8080/webhooks"),
            "ready": run("ready").returncode,
            "ready --relay": run("ready", "--relay").returncode,
            "doctor": json.loads(run("doctor", "--json").stdout),
        }
    finally:
        for each in serving:
            each.terminate()
            each.wait()
print(json.dumps(found))
"""


def everywhere(directory: Path) -> dict[str, str]:
    (directory / "credentials").mkdir()
    (directory / "credentials" / "verify-token").write_text("the-verify-token")
    (directory / "credentials" / "app-secret").write_text("0123456789abcdef" * 2)
    (directory / "destinations.yaml").write_text("destinations: []")
    return {
        "WEBHOOK_BIND": "[::]:8080",
        "WEBHOOK_ADMIN_BIND": "[::]:9090",
        "WEBHOOK_RELAY_BIND": "[::]:9091",
        "WEBHOOK_RUN_DIR": str(directory / "run"),
        "WEBHOOK_CREDENTIALS_DIR": str(directory / "credentials"),
        "WEBHOOK_INBOX": f"sqlite://{directory}/inbox.db",
        "WEBHOOK_DESTINATIONS": str(directory / "destinations.yaml"),
    }


@pytest.mark.needs("netns")
def test_ipv6_only(tmp_path: Path) -> None:
    """On an IPv6-only machine receiver, admin listener and relay answer, and the commands reach them."""
    setup = 'ip link set lo up && ip -4 addr flush dev lo && exec "$@"'
    command = ["unshare", "-n", "sh", "-c", setup, "sh", sys.executable, "-c", _IN_NAMESPACE, str(tmp_path / "log")]
    environ = os.environ | everywhere(tmp_path) | {"PYTHONPATH": str(Path(__file__).parents[2])}
    done = subprocess.run(command, env=environ, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr + (tmp_path / "log").read_text()
    found = json.loads(done.stdout)
    assert found["doctor"]["cause"] is None, found["doctor"]
    del found["doctor"]
    assert found == {"handshake": 200, "IPv4": 0, "ready": 0, "ready --relay": 0}


def test_both_families_on_every_listener(tmp_path: Path) -> None:
    """`[::]` accepts IPv6 and IPv4, on the public and on the admin listener."""
    server = Server(tmp_path)
    server.environ |= {"WEBHOOK_BIND": f"[::]:{server.port}", "WEBHOOK_ADMIN_BIND": f"[::]:{server.admin_port}"}
    with server:
        for host in ("127.0.0.1", "[::1]"):
            assert urllib3.request("GET", f"http://{host}:{server.port}/webhooks", retries=False).status == 404
            assert urllib3.request("GET", f"http://{host}:{server.admin_port}/readyz", retries=False).status == 200
        assert '"ready": true' in server.run("ready")


@pytest.mark.needs("strace")
def test_a_machine_without_ipv6(tmp_path: Path) -> None:
    """`[::]` is bound as 0.0.0.0, and the log says so."""
    server = Server(tmp_path)
    server.environ["WEBHOOK_ADMIN_BIND"] = f"[::]:{server.admin_port}"
    no_ipv6 = ["-e", "trace=bind", "-e", "inject=bind:error=EADDRNOTAVAIL:when=1..2"]  # urllib3 tries one as well
    server.command = ["strace", "-D", "-o", "/dev/null", *no_ipv6, *server.command]
    with server:
        assert server.admin("/livez").status == 200
        (line,) = [each for each in server.log_lines() if each["event"] == "no IPv6 here"]
        assert "WEBHOOK_ADMIN_BIND" in line["detail"]


def test_admin_listeners_bind_to_loopback_by_default(tmp_path: Path) -> None:
    """Without the two settings the configuration is valid."""
    environ = everywhere(tmp_path)
    del environ["WEBHOOK_ADMIN_BIND"], environ["WEBHOOK_RELAY_BIND"]
    assert "is valid" in run_command(environ, "check")


@pytest.mark.parametrize(
    ("host", "shown", "local"),
    [
        ("::ffff:127.0.0.1", "127.0.0.1", True),
        ("::FFFF:10.1.2.3", "10.1.2.3", False),
        ("::ffff:a01:203", "10.1.2.3", False),
        ("::1", "::1", True),
        ("127.0.0.2", "127.0.0.2", True),
        ("localhost", "localhost", True),
        ("::ffff:nonsense", "::ffff:nonsense", False),
        ("127.0.0.1.evil.example", "127.0.0.1.evil.example", False),
        ("2001:db8::1", "2001:db8::1", False),
    ],
)
def test_an_ipv4_mapped_address(host: str, shown: str, local: bool) -> None:  # noqa: FBT001
    """It is shown and compared as IPv4."""
    assert unmapped(host) == shown
    assert is_loopback(host) is local
