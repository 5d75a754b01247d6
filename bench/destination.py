"""A destination that answers 200, immediately or after a delay, and counts the requests; see `make bench`."""

import asyncio
import multiprocessing
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from multiprocessing.sharedctypes import Synchronized

ANSWER = b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"


class _Receiver(asyncio.Protocol):
    """Reads requests as urllib3 writes them: with a Content-Length, and no pipelining."""

    def __init__(self, answered: "Synchronized[int]", delay: float) -> None:
        self._answered = answered
        self._delay = delay
        self._buffer = bytearray()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Store the transport for the responses."""
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        """Answer once a request is complete."""
        self._buffer += data
        head = self._buffer.find(b"\r\n\r\n")
        if head < 0:
            return
        _, _, rest = bytes(self._buffer[:head]).lower().partition(b"content-length:")
        if len(self._buffer) < head + 4 + int(rest.split(b"\r\n", 1)[0]):
            return
        self._buffer.clear()
        if self._delay:
            asyncio.get_running_loop().call_later(self._delay, self._answer)
        else:
            self._answer()

    def _answer(self) -> None:
        self._answered.value += 1
        self._transport.write(ANSWER)  # type: ignore[attr-defined]


def _serve(listener: socket.socket, answered: "Synchronized[int]", delay: float) -> None:
    async def forever() -> None:
        server = await asyncio.get_running_loop().create_server(lambda: _Receiver(answered, delay), sock=listener)
        await server.serve_forever()

    asyncio.run(forever())


@contextmanager
def destination(delay: float = 0.0) -> Iterator[tuple[int, "Synchronized[int]"]]:
    """Run a destination that answers after *delay* seconds; yield its port and its count of answered requests."""
    context = multiprocessing.get_context("fork")
    answered = context.Value("q", 0, lock=False)
    with socket.create_server(("127.0.0.1", 0), backlog=128) as listener:
        process = context.Process(target=_serve, args=(listener, answered, delay), daemon=True)
        process.start()
        try:
            yield listener.getsockname()[1], answered
        finally:
            process.terminate()
            process.join()
