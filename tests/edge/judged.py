"""The service as it is served, with the standard library's judge of WSGI around its application."""

import os
import socket
import sys
from wsgiref.validate import validator

from service import logs
from service.cli.settings import configured
from service.gunicorn_conf import Server
from service.inbox import engine
from service.tracing import Wsgi


class Judged(Server):
    """Asserts, at each request, what server and application owe one another (PEP 3333)."""

    def load(self) -> Wsgi:
        """Start the parts of a worker, and stand between."""
        judge: Wsgi = validator(super().load())
        return judge


if __name__ == "__main__":
    config = configured(os.environ)
    logs.configure(level=config.log_level, form=config.log_format, stream=sys.stdout)
    config.run_dir.mkdir(parents=True, exist_ok=True)
    opener = engine.opener(config.inbox, retention=config.retention, body_retention=config.body_retention)
    Judged(config, os.environ, admin_listener=socket.create_server(config.admin_bind), open_inbox=opener).run()
