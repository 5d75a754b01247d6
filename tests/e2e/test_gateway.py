"""Meta's client certificate, verified by the nginx configuration of docs/kubernetes.md, unchanged."""

import re
import socket
import ssl
import subprocess
from collections.abc import Iterator
from contextlib import closing, contextmanager
from http.client import HTTPSConnection
from pathlib import Path

import pytest
import trustme

from tests.support.server import Server, free_port, until

pytestmark = pytest.mark.needs("nginx")
PAGE = Path(__file__).parents[2] / "docs" / "kubernetes.md"
META = "client.webhooks.fbclientcerts.com"


class Gateway:
    """A real nginx before *server*, which trusts *authority* for client certificates."""

    def __init__(self, directory: Path, server: Server, authority: trustme.CA) -> None:
        self.port = free_port()
        self._own = trustme.CA()
        self._directory = directory
        certificate = self._own.issue_cert("wa.example.com")
        certificate.private_key_pem.write_to_path(directory / "tls.key")
        certificate.cert_chain_pems[0].write_to_path(directory / "tls.crt")
        authority.cert_pem.write_to_path(directory / "meta-outbound-api-ca-2025-12.pem")
        (documented,) = re.findall(r"```nginx\n(.*?)```", PAGE.read_text(), re.DOTALL)
        text = documented.replace("443", f"127.0.0.1:{self.port}").replace("/etc/nginx", str(directory))
        text = text.replace("wh-whatsapp-webhook.whatsapp", f"127.0.0.1:{server.port}")
        kept = "".join(f"{name}_temp_path {directory}/{name};\n" for name in KEPT)
        own = f"pid {directory}/pid;\ndaemon off;\nevents {{}}\nhttp {{\naccess_log off;\n{kept}{text}}}\n"
        (directory / "nginx.conf").write_text(own)

    @contextmanager
    def running(self) -> Iterator[None]:
        command = ["nginx", "-c", f"{self._directory}/nginx.conf", "-e", f"{self._directory}/error.log"]
        with subprocess.Popen(command) as process:
            try:
                until(self._listens, "nginx does not listen")
                yield
            finally:
                process.terminate()

    def status(self, path: str, certificate: trustme.LeafCert | None, method: str = "GET") -> int:
        """Return the status of a request with a client certificate, or without one."""
        trust = ssl.create_default_context()
        trust.check_hostname = False
        self._own.configure_trust(trust)
        if certificate:
            certificate.configure_cert(trust)
        with closing(HTTPSConnection("127.0.0.1", self.port, context=trust)) as connection:
            connection.request(method, path, b"{}" if method == "POST" else None)
            return connection.getresponse().status

    def _listens(self) -> bool:
        with socket.socket() as probe:
            return probe.connect_ex(("127.0.0.1", self.port)) == 0


KEPT = ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")


def test_only_metas_certificate_is_accepted(server: Server, tmp_path: Path) -> None:
    """Authority and name must both match, with an intermediate certificate; the signature is still required."""
    authority = trustme.CA()
    intermediate = authority.create_child_ca()
    meta = intermediate.issue_cert(common_name=META)
    (tmp_path / "gateway").mkdir()
    gateway = Gateway(tmp_path / "gateway", server, authority)
    with gateway.running():
        handshake = f"/webhooks?hub.mode=subscribe&hub.challenge=1&hub.verify_token={server.token}"
        assert gateway.status(handshake, meta) == 200
        assert gateway.status("/webhooks", meta, "POST") == 401
        assert gateway.status("/other", meta) == 404
        assert gateway.status(handshake, intermediate.issue_cert(common_name=f"{META}.example.com")) == 403
        assert gateway.status(handshake, intermediate.issue_cert(common_name=f"other-{META}")) == 403
        assert gateway.status(handshake, trustme.CA().issue_cert(common_name=META)) == 400
        assert gateway.status(handshake, None) == 400
