"""A destination that receives what a relay sends, and can misbehave in every way a server can."""

import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import NamedTuple

OK = b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"


class Request(NamedTuple):
    """A received request, with its time on the monotonic clock; header names are in lower case."""

    at: float
    headers: dict[str, str]
    body: bytes


Behaviour = Callable[[Request, socket.socket], None]


def saying(answer: bytes = OK, after: float = 0.0) -> Behaviour:
    """Return a behaviour that sends *answer* to every request, *after* some seconds."""

    def say(_request: Request, client: socket.socket) -> None:
        time.sleep(after)
        client.sendall(answer)

    return say


class Destination:
    """Serves on a port of 127.0.0.1 and records each request before answering it."""

    def __init__(self, behave: Behaviour, tls: Callable[[], ssl.SSLContext] | None = None, port: int = 0) -> None:
        """*tls* returns the context of each connection."""
        self.behave = behave
        self.requests: list[Request] = []
        self._tls = tls
        self._clients: set[socket.socket] = set()
        self._listener = socket.create_server(("127.0.0.1", port), backlog=512)
        self.port = self._listener.getsockname()[1]
        threading.Thread(target=self._accept, daemon=True).start()

    def bodies(self) -> list[bytes]:
        """Return the received bodies in order."""
        return [request.body for request in list(self.requests)]

    def close(self) -> None:
        """Stop listening, and close every connection."""
        with suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        for client in list(self._clients):
            with suppress(OSError):
                client.shutdown(socket.SHUT_RDWR)

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                client = self._listener.accept()[0]
                threading.Thread(target=self._serve, args=[client], daemon=True).start()

    def _serve(self, client: socket.socket) -> None:
        self._clients.add(client)
        try:
            with suppress(OSError, ValueError):
                client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                connection = self._tls().wrap_socket(client, server_side=True) if self._tls else client
                self._converse(connection)
        finally:
            self._clients.discard(client)
            client.close()

    def _converse(self, connection: socket.socket) -> None:
        with connection, connection.makefile("rb") as stream:
            while stream.readline():
                headers = {}
                while (line := stream.readline().strip()) != b"":
                    name, _, value = line.decode("latin-1").partition(":")
                    headers[name.lower()] = value.strip()
                request = Request(time.monotonic(), headers, stream.read(int(headers["content-length"])))
                self.requests.append(request)
                self.behave(request, connection)


@contextmanager
def destination(
    behave: Behaviour | None = None, tls: Callable[[], ssl.SSLContext] | None = None
) -> Iterator[Destination]:
    """Run a destination until the block exits; without *behave* it answers 200 immediately."""
    server = Destination(behave or saying(), tls)
    try:
        yield server
    finally:
        server.close()
