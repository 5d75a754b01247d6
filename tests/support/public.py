"""The service as it is reached from outside: behind a real proxy that terminates TLS, with a Graph API."""

import json
import os
import socket
import ssl
import subprocess
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Self

import trustme

from tests.support import commands, graph
from tests.support.server import Server, free_port, until

APP, ACCOUNT, NUMBER = "188559381496048", "102290129340398", "106540352242922"
TEMPORARY_PATHS = "".join(
    f"{name}_temp_path {{directory}}/{name}; " for name in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
)
NGINX = f"""
{{user}} daemon off; pid {{directory}}/pid; error_log {{directory}}/log; events {{{{}}}}
http {{{{
    access_log off; {TEMPORARY_PATHS}
    {{outside}}
    ssl_certificate {{certificate}}; ssl_certificate_key {{certificate}};
    server {{{{
        listen {{address}}:{{port}} ssl;
        {{rules}}
        location / {{{{ proxy_pass http://127.0.0.1:{{upstream}}; }}}}
    }}}}
    {{more}}
}}}}
"""
HAPROXY = """
defaults
    mode http
    timeout connect 2s
    timeout client 10s
    timeout server 10s
frontend in
    bind {address}:{port} ssl crt {certificate} {tls}
    {rules}
    default_backend receiver
backend receiver
    {more}
    server one 127.0.0.1:{upstream}
"""
# Otherwise nginx's workers could not write to the directories of a test.
USER = "user root;" if os.geteuid() == 0 else ""
LARGE = "client_max_body_size 4m;"  # as the docs require; nginx's default is 1 MB


class World:
    """A certificate authority, Meta's Graph API, and the service, which may have a proxy; the host is `localhost`."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.authority = trustme.CA()
        self.trusted = directory / "ca.pem"
        self.authority.cert_pem.write_to_path(self.trusted)
        self.server = Server(directory)
        trust, tls = ssl.create_default_context(), ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self.authority.configure_trust(trust)
        self.authority.issue_cert("localhost").configure_cert(tls)
        self.graph = graph.Graph(graph.state(), tls=tls, trust=trust)
        self.state = self.graph.state
        (self.access_token,) = self.state["tokens"]
        self.server.secret = self.state["apps"][APP]["secret"]
        self.server.token = "a-token-of-ours"
        self.port = free_port()
        self.unused = free_port()  # nothing listens on it; on the default port `make run` may listen
        self.url = f"https://localhost:{self.port}/webhooks"  # the proxy's URL, if there is a proxy

    def __enter__(self) -> Self:
        self.server.__enter__()
        self.graph.__enter__()
        self.write("access-token", self.access_token)
        return self

    def __exit__(self, *raised: object) -> None:
        self.graph.__exit__()
        self.server.stop()

    def reset(self) -> None:
        """Reset Meta's side to the initial state: an app without any registration."""
        self.graph.adds = False
        self.graph.answers_as = ""
        self.graph.on_ask.clear()
        for list_of in (self.graph.faults, self.graph.asked, self.graph.changed):
            list_of.clear()
        for kind, initial in graph.state().items():
            if kind == "tokens":
                self.state[kind] = {self.access_token: next(iter(initial.values()))}
            else:
                self.state[kind] = initial
        self.state["apps"][APP]["secret"] = self.server.secret

    def write(self, name: str, value: str) -> None:
        """Write a credentials file."""
        (self.server.credentials / name).write_text(value)

    @property
    def environ(self) -> dict[str, str]:
        """Return the environment of commands that run outside of the service: without the service's settings."""
        return {
            "SSL_CERT_FILE": str(self.trusted),
            "WEBHOOK_GRAPH_URL": f"https://localhost:{self.graph.port}",
            "WEBHOOK_CREDENTIALS_DIR": str(self.server.credentials),
            "WEBHOOK_APP_ID": APP,
            "WEBHOOK_ACCOUNTS": ACCOUNT,
            "WEBHOOK_CALLBACK_URL": self.url,
        }

    def run(self, *arguments: str, text: str = "", here: bool = False, **more: str) -> subprocess.CompletedProcess[str]:
        """Run a command; with *here*, it also has the service's own settings, as in its pod."""
        clean = {name: value for name, value in os.environ.items() if not name.startswith(("WEBHOOK_", "OTEL_"))}
        unreachable = {"WEBHOOK_ADMIN_BIND": f"127.0.0.1:{self.unused}"}
        environ = clean | (self.server.environ if here else unreachable) | self.environ | more
        return commands.run(*arguments, environ=environ, given=text.encode())

    def registered(self) -> dict[str, Any]:
        """Return the app's subscription at Meta."""
        subscription: dict[str, Any] = self.state["apps"][APP]["subscriptions"].get(graph.OBJECT, {})
        return subscription

    def fields(self) -> set[str]:
        """Return the names of the subscription's fields."""
        return {field["name"] for field in self.registered().get("fields", ())}

    def register(self, url: str | None = None, fields: str = "messages") -> None:
        """Set up a complete registration at Meta, without a handshake."""
        subscription = {
            "callback_url": url or self.url,
            "active": True,
            "fields": [{"name": name, "version": graph.VERSIONS[-1]} for name in fields.split(",")],
        }
        self.state["apps"][APP]["subscriptions"][graph.OBJECT] = subscription
        self.state["accounts"][ACCOUNT]["apps"][APP] = None

    def behind(self, proxy: str = "nginx", **settings: Any) -> "Front":
        """Return a real proxy for the service: see `Front`."""
        return Front(self, proxy, **settings)


class Front:
    """A proxy that terminates TLS at `https://localhost:<port>/webhooks`; *rules* are added to its listener."""

    def __init__(
        self,
        world: World,
        proxy: str,
        *,
        rules: str = LARGE,
        more: str = "",
        outside: str = "",
        address: str = "127.0.0.1",
        certificate: trustme.LeafCert | None = None,
        upstream: int | None = None,
        chain: bool = True,
        tls: str = "",
    ) -> None:
        self.world, self.proxy = world, proxy
        directory = world.directory / f"{proxy}-{address}"
        directory.mkdir(exist_ok=True)
        self._address = (address, world.port)
        leaf = certificate or world.authority.issue_cert("localhost")
        file = directory / "tls.pem"
        certificates = leaf.cert_chain_pems if chain else leaf.cert_chain_pems[:1]
        file.write_bytes(b"".join(part.bytes() for part in (leaf.private_key_pem, *certificates)))
        template = NGINX if proxy == "nginx" else HAPROXY
        values: Mapping[str, Any] = {
            "directory": directory,
            "certificate": file,
            "port": world.port,
            "more": more,
            "outside": outside,
            "address": address,
            "user": USER,
            "tls": tls,
        }
        self.file = directory / "conf"
        self.file.write_text(template.format(**values, rules=rules, upstream=upstream or world.server.port))
        log = directory / "start.log"
        self.command = {"nginx": ["nginx", "-e", str(log), "-c"], "haproxy": ["haproxy", "-db", "-q", "-f"]}[proxy]

    @contextmanager
    def running(self) -> Iterator[None]:
        with subprocess.Popen([*self.command, str(self.file)], stderr=subprocess.DEVNULL) as process:
            try:
                until(lambda: _listens(self._address) or process.poll() is not None, f"{self.proxy} does not listen")
                assert process.poll() is None, f"{self.proxy} does not start: {self.file}"
                yield
            finally:
                process.terminate()

    def __enter__(self) -> Self:
        self._running = self.running()
        self._running.__enter__()
        return self

    def __exit__(self, *raised: object) -> None:
        self._running.__exit__(*raised)  # type: ignore[arg-type]


def findings(output: str) -> list[dict[str, str]]:
    """Return the findings in the output of `doctor --json`."""
    parsed: list[dict[str, str]] = json.loads(output)["findings"]
    return parsed


def _listens(address: tuple[str, int]) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(address) == 0
