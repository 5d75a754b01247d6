"""docs/vm.md: its systemd units, its compose file, its proxies and its commands, as far as one machine can show.

Both set-ups are played: the commands, variables, directories, signals and timeouts are read from the files, and only
paths and ports are replaced. Not shown: what systemd and Docker do themselves, so the user, the sandbox and mounts,
restarts, and limits of memory. The sandbox's system call filter is compared with the calls that are made.
"""

import configparser
import json
import os
import re
import secrets
import shlex
import signal
import socket
import ssl
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, closing, contextmanager
from http.client import HTTPSConnection
from pathlib import Path
from typing import Any, NamedTuple

import jsonschema_rs
import pytest
import trustme
import yaml

from service import signature
from service.config import SETTINGS
from service.meta import catalogue
from tests.support import relaying
from tests.support.destination import Destination, destination
from tests.support.public import USER
from tests.support.server import Server, free_port, until

ROOT = Path(__file__).parents[2]
VM = ROOT / "docs" / "vm"
PAGE = (ROOT / "docs" / "vm.md").read_text()
RECEIVER_UNIT, RELAY_UNIT = "whatsapp-webhook.service", "whatsapp-webhook-relay.service"
PROGRAM = "/opt/whatsapp-webhook/bin/whatsapp-webhook"
ETC = "/etc/whatsapp-webhook"
NOT_MOUNTED, INACCESSIBLE = "not-mounted", "inaccessible"
SECONDS = re.compile(r"([0-9]+)s")


class Program(NamedTuple):
    """A process as a unit or a compose service describes it, with the paths and ports of a test."""

    command: list[str]
    environ: dict[str, str]
    stop_signal: signal.Signals
    stop_seconds: int
    health_command: list[str]

    def start(self, log: Path, notify_socket: str = "", wrapper: Sequence[str] = ()) -> subprocess.Popen[bytes]:
        environ = self.environ | ({"NOTIFY_SOCKET": notify_socket} if notify_socket else {})
        with log.open("ab") as output:
            return subprocess.Popen(
                [*wrapper, *self.command], cwd="/", env=environ, stdout=output, stderr=output, umask=0o077
            )

    def stop(self, process: subprocess.Popen[bytes]) -> int:
        process.send_signal(self.stop_signal)
        return process.wait(self.stop_seconds)


class Machine:
    """A directory that stands for the root of a VM, and ports that stand for its ports."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.client = Server(root)  # never started: it knows how to be Meta
        self.ports = {"8080": self.client.port, "9090": self.client.admin_port, "9091": free_port()}
        for name in (NOT_MOUNTED, INACCESSIBLE):
            (root / name).touch()  # a file: nothing can be read or made below it
        self.client.credentials = self.path(f"{ETC}/credentials")
        self.client.write_credentials(self.client.token, self.client.secret)

    def path(self, path: str) -> Path:
        """Return the directory that stands for the one at *path*, which exists from now on."""
        found = Path(f"{self.root}{path}")
        found.mkdir(mode=0o700, parents=True, exist_ok=True)
        return found

    def deliver_to(self, target: Destination) -> None:
        relaying.write(
            self.path(f"{ETC}/destinations"), {"name": "app", "url": f"http://127.0.0.1:{target.port}/", "tests": True}
        )

    def environ(self, given: Mapping[str, str], mounts: Mapping[str, Path]) -> dict[str, str]:
        """Return the variables of a process: defaults, then *given*; of paths, only those in *mounts* exist."""
        environ = {each.name: each.default for each in SETTINGS if each.default} | given
        for name, value in environ.items():
            if name.endswith("_BIND"):
                host, _, port = value.rpartition(":")
                environ[name] = f"{'127.0.0.1' if host == '0.0.0.0' else host}:{self.ports[port]}"
            elif path := re.fullmatch(r"(sqlite://)?(/(?:run|var|etc)/.+)", value):
                environ[name] = f"{path[1] or ''}{self._mounted(path[2], mounts)}"
        return {"PATH": os.environ["PATH"], "PYTHONPATH": str(ROOT)} | environ

    def _mounted(self, path: str, mounts: Mapping[str, Path]) -> Path:
        for target in sorted(mounts, key=len, reverse=True):
            if Path(path).is_relative_to(target):
                return mounts[target] / Path(path).relative_to(target)
        return self.root / NOT_MOUNTED / path[1:]


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    return Machine(tmp_path)


def program(arguments: Sequence[str]) -> list[str]:
    """Return the command that runs this source's `whatsapp-webhook`."""
    return [sys.executable, "-m", "service", *arguments]


def unit(name: str) -> configparser.SectionProxy:
    """Return the [Service] section of a unit."""
    parser = configparser.ConfigParser(strict=False, interpolation=None, delimiters="=")
    parser.optionxform = str  # type: ignore[assignment,method-assign]
    parser.read_string((VM / name).read_text())
    return parser["Service"]


def unit_program(name: str, machine: Machine) -> Program:
    """Make the directories that systemd would make, and return the process that it would start."""
    service = unit(name)
    mounts = {ETC: machine.path(ETC)}
    mounts |= dict.fromkeys(service["InaccessiblePaths"].replace("-/", "/").split(), machine.root / INACCESSIBLE)
    for setting, parent in (("RuntimeDirectory", "/run"), ("StateDirectory", "/var/lib")):
        if directory := service.get(setting):
            mounts[f"{parent}/{directory}"] = machine.path(f"{parent}/{directory}")
    assert service["EnvironmentFile"] == f"{ETC}/environment"
    given = {}
    for text in (service.get("Environment", ""), (VM / "environment").read_text()):
        given |= dict(each.split("=", 1) for each in shlex.split(text, comments=True))
    executable, *arguments = shlex.split(service["ExecStart"])
    assert executable == PROGRAM
    return Program(
        command=program(arguments),
        environ=machine.environ(given, mounts),
        stop_signal=signal.Signals[service["KillSignal"]],
        stop_seconds=_seconds(service["TimeoutStopSec"]),
        health_command=program(["ready"]),
    )


def _seconds(text: str) -> int:
    found = SECONDS.fullmatch(text)
    assert found, text
    return int(found[1])


@contextmanager
def notify_socket() -> Iterator[tuple[str, socket.socket]]:
    """Listen as systemd does for `Type=notify`; yields the value of NOTIFY_SOCKET too."""
    name = f"test-{secrets.token_hex(8)}"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listening:
        listening.bind(f"\0{name}")
        listening.settimeout(20)
        yield f"@{name}", listening


@contextmanager
def running(process: subprocess.Popen[bytes]) -> Iterator[subprocess.Popen[bytes]]:
    try:
        yield process
    finally:
        process.kill()
        process.wait()


def receive_and_deliver(machine: Machine, target: Destination) -> None:
    """Send a handshake and a signed notification, and wait until the destination receives it."""
    machine.client.wait_until_ready()
    assert machine.client.handshake().body == b"1158201444"
    body = catalogue.notification("message text")
    assert machine.client.notify(body).status == 200
    until(lambda: target.requests, "nothing was delivered")
    assert target.requests[0].headers["ce-type"] == "com.whatsapp.message.text"


@pytest.mark.parametrize("name", [RECEIVER_UNIT, RELAY_UNIT, "environment", "compose.yaml"])
def test_the_page_quotes_the_files(name: str) -> None:
    """What a reader copies from the page is the file that is tested."""
    assert (VM / name).read_text() in re.findall(r"^```\w+\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)


@pytest.mark.needs("systemd-analyze")
def test_systemd_accepts_the_units(tmp_path: Path) -> None:
    """`systemd-analyze verify` finds nothing to report, and its rating of the sandbox is "OK" (2 or below)."""
    for name in (RECEIVER_UNIT, RELAY_UNIT):
        (tmp_path / name).write_text((VM / name).read_text().replace(PROGRAM, sys.executable))
    files = [str(tmp_path / name) for name in (RECEIVER_UNIT, RELAY_UNIT)]
    done = subprocess.run(
        ["systemd-analyze", "verify", "--man=no", *files], capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")
    for file in files:
        command = ["systemd-analyze", "security", "--offline=yes", "--no-pager", "--threshold=20", file]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout + done.stderr


def test_the_units_deliver_a_message(machine: Machine) -> None:
    """Both start in either order, are ready, deliver, and stop with status 0 at the unit's signal and in its time."""
    receiver, relay = (unit_program(name, machine) for name in (RECEIVER_UNIT, RELAY_UNIT))
    with ExitStack() as stack:
        address, listening = stack.enter_context(notify_socket())
        target = stack.enter_context(destination())
        machine.deliver_to(target)
        relaying_process = stack.enter_context(running(relay.start(machine.root / "relay.log")))
        until(lambda: _listens(machine.ports["9091"]), "the relay does not start without an inbox")
        receiving_process = stack.enter_context(running(receiver.start(machine.root / "log", address)))
        assert b"READY=1" in listening.recv(1000)
        receive_and_deliver(machine, target)
        for health_command in (receiver.health_command, [*relay.health_command, "--relay"]):
            subprocess.run(health_command, cwd="/", env=relay.environ, check=True)
        assert receiver.stop(receiving_process) == 0
        assert relay.stop(relaying_process) == 0
    assert (machine.path("/var/lib/whatsapp-webhook") / "inbox.db").stat().st_mode & 0o777 == 0o600


def test_only_the_receiver_has_the_runtime_directory() -> None:
    """Systemd removes it when its unit stops: a relay that stops would remove the receiver's."""
    assert "RuntimeDirectory" in unit(RECEIVER_UNIT)
    assert "RuntimeDirectory" not in unit(RELAY_UNIT)


@pytest.mark.parametrize("name", [RECEIVER_UNIT, RELAY_UNIT])
def test_a_wrong_configuration_is_not_restarted(name: str, machine: Machine) -> None:
    """It exits with the status that the unit excludes; a port in use exits with another one, which is restarted."""
    service, wrong = unit(name), unit_program(name, machine)
    assert service["Restart"] == "on-failure"
    wrong.environ["WEBHOOK_RETENTION"] = "soon"
    log = machine.root / "log"
    assert wrong.start(log).wait(20) == int(service["RestartPreventExitStatus"]), log.read_text()
    in_use = unit_program(name, machine)
    with ExitStack() as stack:
        for port in machine.ports.values():
            stack.enter_context(closing(socket.create_server(("127.0.0.1", port))))
        assert in_use.start(log).wait(20) == 1


@pytest.mark.needs("strace", "systemd-analyze")
def test_the_system_call_filter(machine: Machine) -> None:
    """Allows every call that the two make, from their start to their stop."""
    receiver, relay = (unit_program(name, machine) for name in (RECEIVER_UNIT, RELAY_UNIT))
    counts = [machine.root / "receiver.calls", machine.root / "relay.calls"]
    with ExitStack() as stack:
        target = stack.enter_context(destination())
        machine.deliver_to(target)
        processes = [
            stack.enter_context(running(each.start(machine.root / "log", wrapper=_traced(file))))
            for each, file in zip((receiver, relay), counts, strict=True)
        ]
        receive_and_deliver(machine, target)
        for each, process in zip((receiver, relay), processes, strict=True):
            assert each.stop(process) == 0
    groups = _call_groups()
    for name, file in zip((RECEIVER_UNIT, RELAY_UNIT), counts, strict=True):
        until(lambda file=file: file.exists() and "total" in file.read_text(), "strace does not end")
        made = set(re.findall(r"([a-z0-9_]+)$", file.read_text(), re.MULTILINE)) - {"syscall", "total"}
        assert len(made) > 40
        assert made <= groups[unit(name)["SystemCallFilter"]]


def _traced(file: Path) -> list[str]:
    """Return the command before a command that counts its system calls, and leaves it the child of who starts it."""
    return ["strace", "-D", "-f", "-c", "-o", str(file)]


def _call_groups() -> dict[str, set[str]]:
    said = subprocess.run(
        ["systemd-analyze", "syscall-filter", "--no-pager"], capture_output=True, text=True, check=True
    )
    groups: dict[str, set[str]] = {}
    for line in said.stdout.splitlines():
        if line.startswith("@"):
            calls = groups[line] = set()
        elif (name := line.strip()) and not name.startswith("#"):
            calls.add(name)
    return {name: _flat(name, groups) for name in groups}


def _flat(name: str, groups: Mapping[str, set[str]]) -> set[str]:
    """Return the calls of a group, with those of the groups in it."""
    return {call for each in groups[name] for call in (_flat(each, groups) if each in groups else {each})}


def _listens(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


# The keys of the compose specification that the file uses, with their types there.
# https://github.com/compose-spec/compose-spec/blob/main/schema/compose-spec.json
TEXT: dict[str, Any] = {"type": "string"}
TEXTS: dict[str, Any] = {"type": "array", "items": TEXT, "uniqueItems": True}
DURATION: dict[str, Any] = {"type": "string", "pattern": "^([0-9]+(us|ms|s|m|h))+$"}
COMPOSE_SHAPE: dict[str, Any] = {
    "type": "object",
    "additionalProperties": False,
    "required": ["services"],
    "properties": {
        "name": {"type": "string", "pattern": "^[a-z0-9][a-z0-9_-]*$"},
        "volumes": {"type": "object", "additionalProperties": {"type": ["object", "null"]}},
        "services": {
            "type": "object",
            "propertyNames": {"pattern": "^[a-zA-Z0-9._-]+$"},
            "additionalProperties": {
                "type": "object",
                "additionalProperties": False,
                "required": ["image"],
                "properties": {
                    "image": TEXT,
                    "build": {"type": "object", "additionalProperties": False, "properties": {"context": TEXT}},
                    "command": {"type": "array", "items": TEXT},
                    "environment": {"type": "object", "additionalProperties": {"type": ["string", "number", "null"]}},
                    "ports": TEXTS,
                    "volumes": TEXTS,
                    "tmpfs": TEXTS,
                    "healthcheck": {
                        "type": "object",
                        "additionalProperties": False,
                        "properties": {
                            "test": {"type": "array", "items": TEXT, "contains": {"const": "CMD"}},
                            "interval": DURATION,
                            "timeout": DURATION,
                            "start_period": DURATION,
                        },
                    },
                    "restart": {"enum": ["no", "always", "on-failure", "unless-stopped"]},
                    "stop_signal": TEXT,
                    "stop_grace_period": DURATION,
                    "mem_limit": {"type": "string", "pattern": "^[0-9]+[bkmg]b?$"},
                    "read_only": {"type": "boolean"},
                    "cap_drop": TEXTS,
                    "security_opt": TEXTS,
                    "logging": {"type": "object", "properties": {"driver": TEXT}},
                },
            },
        },
    },
}


@pytest.fixture(scope="module")
def compose() -> dict[str, Any]:
    found: dict[str, Any] = yaml.safe_load((VM / "compose.yaml").read_text())
    return found


def test_the_compose_file(compose: dict[str, Any]) -> None:
    """Has the shape of the specification; both services are sandboxed, and share the inbox's volume."""
    errors = jsonschema_rs.validator_for(COMPOSE_SHAPE).iter_errors(compose)
    assert [(list(error.instance_path), error.message) for error in errors] == []
    services = compose["services"]
    assert list(services) == ["receiver", "relay"]
    for service in services.values():
        assert service["read_only"]
        assert service["cap_drop"] == ["ALL"]
        assert service["security_opt"] == ["no-new-privileges:true"]
        assert "inbox:/var/lib/whatsapp-webhook" in service["volumes"]
        assert service["image"] == services["receiver"]["image"]
    assert "inbox" in compose["volumes"]
    assert (VM / services["receiver"]["build"]["context"] / "Dockerfile").exists()
    assert not [port for each in services.values() for port in each.get("ports", []) if not port.startswith("127.")]


def compose_program(service: Mapping[str, Any], machine: Machine) -> Program:
    """Make what Docker would mount, and return the process that it would start."""
    (entrypoint,) = re.findall(r"^ENTRYPOINT (.*)$", (ROOT / "Dockerfile").read_text(), re.MULTILINE)
    assert json.loads(entrypoint) == ["whatsapp-webhook"]
    mounts = {}
    for volume in service["volumes"]:
        source, target, *_ = volume.split(":")
        mounts[target] = machine.path(source if source.startswith("/") else f"/volumes/{source}")
    for tmpfs in service.get("tmpfs", []):
        target, _, options = tmpfs.partition(":")
        assert "uid=10001,gid=10001" in options, "the user of the image"
        mounts[target] = machine.path(f"/tmpfs{target}")
    kind, executable, *arguments = service["healthcheck"]["test"]
    assert (kind, executable) == ("CMD", "whatsapp-webhook")
    return Program(
        command=program(service["command"]),
        environ=machine.environ(service["environment"], mounts),
        stop_signal=signal.Signals[service["stop_signal"]],
        stop_seconds=_seconds(service["stop_grace_period"]),
        health_command=program(arguments),
    )


def test_the_compose_services_deliver_a_message(compose: dict[str, Any], machine: Machine) -> None:
    """As the units do; Docker itself is not used: no image is built, no container run, and nothing is read-only."""
    programs = [compose_program(service, machine) for service in compose["services"].values()]
    with ExitStack() as stack:
        target = stack.enter_context(destination())
        machine.deliver_to(target)
        logs = [machine.root / "log", machine.root / "relay.log"]
        processes = [stack.enter_context(running(each.start(log))) for each, log in zip(programs, logs, strict=True)]
        receive_and_deliver(machine, target)
        for each, process in zip(programs, processes, strict=True):
            subprocess.run(each.health_command, cwd="/", env=each.environ, check=True)
            assert each.stop(process) == 0


@pytest.mark.needs("nginx")
def test_the_nginx_of_the_page(server: Server, tmp_path: Path) -> None:
    """Passes 3 MB and the signature on, and answers every other path itself."""
    port, own = free_port(), trustme.CA()
    (tmp_path / "nginx").mkdir()
    certificate = own.issue_cert("wa.example.com")
    certificate.private_key_pem.write_to_path(tmp_path / "nginx" / "privkey.pem")
    certificate.cert_chain_pems[0].write_to_path(tmp_path / "nginx" / "fullchain.pem")
    (documented,) = re.findall(r"^```nginx\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)
    text = documented.replace("443", f"127.0.0.1:{port}").replace("127.0.0.1:8080", f"127.0.0.1:{server.port}")
    text = text.replace("/etc/letsencrypt/live/wa.example.com", str(tmp_path / "nginx"))
    temporary = "".join(
        f"{name}_temp_path {tmp_path}/nginx/{name};\n" for name in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    )
    access_log = tmp_path / "nginx" / "access.log"
    main = f"{USER} pid {tmp_path}/nginx/pid; daemon off; events {{}}\n"
    (tmp_path / "nginx.conf").write_text(f"{main}http {{\naccess_log {access_log};\n{temporary}{text}}}\n")
    nginx = ["nginx", "-c", f"{tmp_path}/nginx.conf", "-e", f"{tmp_path}/nginx/error.log"]
    with running(subprocess.Popen(nginx)) as process:
        until(lambda: _listens(port), "nginx does not listen")
        large = catalogue.notification("message text").ljust(3_000_000)
        signed = {signature.HEADER: signature.header_for(large, server.secret.encode())}
        query = f"hub.mode=subscribe&hub.challenge=1&hub.verify_token={server.token}"
        assert _ask(port, own, "GET", f"/webhooks?{query}") == 200
        assert _ask(port, own, "POST", "/webhooks", large, signed) == 200
        assert _ask(port, own, "GET", "/readyz") == 404
        process.terminate()
        process.wait()
    assert server.token not in access_log.read_text(), "the query string holds the verify token"


def _ask(port: int, authority: trustme.CA, method: str, path: str, *sent: Any) -> int:
    trust = ssl.create_default_context()
    trust.check_hostname = False
    authority.configure_trust(trust)
    with closing(HTTPSConnection("127.0.0.1", port, context=trust)) as connection:
        connection.request(method, path, *sent)
        return connection.getresponse().status


def shell(section: str, server: Server) -> list[str]:
    """Return the shell blocks of a section, with the paths of *server* and without another user."""
    text = re.split(r"^##+ ", PAGE.split(f"# {section}\n")[1], flags=re.MULTILINE)[0]
    text = text.replace("/var/lib/whatsapp-webhook", str(server.directory)).replace("-u whatsapp-webhook ", "")
    text = text.replace("/opt/whatsapp-webhook/bin/python", sys.executable).replace("-g whatsapp-webhook ", "")
    text = text.replace(f"{ETC}/credentials", str(server.credentials))
    return re.findall(r"^```sh\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)


def run_shell(block: str) -> None:
    """Run a block; what starts and stops services is left to the test."""
    functions = 'sudo() { "$@"; }\nsystemctl() { :; }\n'
    subprocess.run(["bash", "-euo", "pipefail", "-c", functions + block], cwd=ROOT, check=True, timeout=60)


def test_the_rotation_of_the_page(server: Server) -> None:
    """The receiver accepts both values, without a restart; the file stays readable to its group only."""
    _, rotate = shell("Credentials", server)
    run_shell(rotate)
    file = server.credentials / "verify-token"
    new, old = file.read_text().splitlines()
    assert old == server.token
    assert file.stat().st_mode & 0o777 == 0o640
    until(lambda: server.handshake(new).status == 200, "the new value is not accepted")
    assert server.handshake(old).status == 200


def test_the_backup_of_the_page(server: Server) -> None:
    """A backup is made while the receiver runs, and restored while it does not."""
    backup, restore = shell("Backup and restore", server)
    assert server.notify(catalogue.notification("message text")).status == 200
    run_shell(backup)
    assert server.notify(catalogue.notification("message image")).status == 200
    assert server.stop() == 0
    run_shell(restore)
    server.start()
    server.wait_until_ready()
    assert [event.type for event in server.kept()] == ["com.whatsapp.message.text"]
    assert not list(server.directory.glob("backup*"))


@pytest.mark.needs("prometheus")
def test_the_alert_rules_of_the_page(server: Server) -> None:
    """Prometheus accepts the rule file that the page writes from the chart's alerts."""
    (block,) = shell("Firewall and metrics", server)[1:]
    rules = server.directory / "rules.yaml"
    run_shell(block.replace("whatsapp-webhook-rules.yaml", str(rules)))
    done = subprocess.run(["promtool", "check", "rules", rules], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    names = {rule["alert"] for group in yaml.safe_load(rules.read_text())["groups"] for rule in group["rules"]}
    assert {"WebhookDown", "WebhookVolumeNearlyFull", "WebhookRelayDown"} <= names
    assert not re.search("__[A-Z]+__", rules.read_text())
    assert "First: wh doctor" in rules.read_text()
    assert "kubectl" not in rules.read_text()
