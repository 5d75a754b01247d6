"""The admin listener's server, on a separate port with separate threads."""

import socket
import threading
from typing import Any

import falcon
import waitress.server


class AdminServer:
    """Serves the admin application from separate threads."""

    def __init__(self, app: falcon.App[Any, Any], listener: socket.socket) -> None:
        """*listener* is bound and listening; it may be shared with other workers."""
        self._server = waitress.server.create_server(
            app,
            sockets=[listener],
            ident=None,
            threads=2,
            asyncore_use_poll=True,
            channel_timeout=5,
            cleanup_interval=5,
            connection_limit=1000,
            max_request_body_size=1024,
        )
        self._thread = threading.Thread(target=self._server.run, name="admin", daemon=True)

    def start(self) -> None:
        """Start to serve."""
        self._thread.start()

    def stop(self) -> None:
        """Stop; responses in progress may be cut off."""
        self._server.close()
