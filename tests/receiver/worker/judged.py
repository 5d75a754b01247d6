"""The service with `wsgiref.validate` around its application."""

import os
import socket
import sys
from wsgiref.validate import validator

from service.cli.load_config import configured
from service.receiver import run_directory
from service.receiver.server import Server
from service.storage.protocols import Terms
from service.storage.url_reload import InboxSource
from service.telemetry import logs
from service.telemetry.tracing import Wsgi


class Judged(Server):
    """Asserts at each request that server and application comply with WSGI (PEP 3333)."""

    def load(self) -> Wsgi:
        """Start the parts of a worker, and wrap its application."""
        validated: Wsgi = validator(super().load())
        return validated


if __name__ == "__main__":
    config = configured(os.environ)
    logs.configure(level=config.log_level, form=config.log_format, stream=sys.stdout)
    run_directory.prepare(config.run_dir)
    inbox = InboxSource(
        config.inbox, Terms(retention=int(config.retention * 1000), body_retention=int(config.body_retention * 1000))
    )
    listeners = {
        "listener": socket.create_server(config.bind, backlog=128),
        "admin_listener": socket.create_server(config.admin_bind),
    }
    Judged(config, os.environ, **listeners, inbox=inbox).run()
