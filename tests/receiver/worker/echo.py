"""A server that returns the request as it parsed it: `echo.py PORT ours|gunicorn [SETTING=VALUE ...]`."""

import sys
import tempfile
from collections.abc import Callable, Iterable
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from wsgiref.validate import validator

from gunicorn.app.base import BaseApplication

from service.receiver.server import QuietLogger
from service.receiver.worker import Worker

READ_TIMEOUT = 1.0


def echo(environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
    """Return method, target, version, body and a proxy's mark; answer 400 if the body can't be read."""
    try:
        pieces = list(iter(lambda: environ["wsgi.input"].read(4096), b""))
        status = "200 OK"
    except Exception:  # noqa: BLE001  whatever a server's reader raises
        pieces, status = [], "400 Bad Request"
    query = f"?{environ['QUERY_STRING']}" if environ["QUERY_STRING"] else ""
    request = f"{environ['REQUEST_METHOD']} {environ['PATH_INFO']}{query} {environ['SERVER_PROTOCOL']}"
    mark = f" id={environ['HTTP_X_MARK']}" if "HTTP_X_MARK" in environ else ""
    body = f"{request} {b''.join(pieces)!r}{mark}".encode("latin-1") if status == "200 OK" else b"broken"
    start_response(status, [("Content-Type", "text/plain"), ("Content-Length", str(len(body)))])
    return [body]


class Echo(BaseApplication):
    """The application on one of the two workers."""

    def __init__(self, port: int, worker: str, *settings: str) -> None:
        """*settings* are settings of gunicorn, as `name=value`."""
        self._port = port
        self._worker = worker
        self._settings = dict(setting.split("=") for setting in settings)
        self._directory = tempfile.mkdtemp()
        self.config = SimpleNamespace(
            read_timeout=READ_TIMEOUT,
            run_dir=Path(self._directory),
            max_body_bytes=1 << 20,
            max_header_bytes=8190,
            inflight_bytes=1 << 27,
        )
        super().__init__()

    def load_config(self) -> None:
        """Set gunicorn's settings as the service does."""
        settings = {
            "bind": f"127.0.0.1:{self._port}",
            "worker_class": Worker if self._worker == "ours" else "gevent",
            "worker_tmp_dir": self._directory,
            "keepalive": 75,
            "forwarded_allow_ips": "",
            "forwarder_headers": "",
            "secure_scheme_headers": {},
            "control_socket_disable": True,
            "accesslog": None,
            "loglevel": "critical",
            "logger_class": QuietLogger,
            **self._settings,
        }
        for name, value in settings.items():
            self.cfg.set(name, value)

    def load(self) -> Callable[..., Iterable[bytes]]:
        """Return the application; on our worker, `wsgiref.validate` checks it."""
        return validator(echo) if self._worker == "ours" else echo


if __name__ == "__main__":
    Echo(int(sys.argv[1]), *sys.argv[2:]).run()
