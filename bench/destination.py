"""A destination that answers 200 at once, or after some milliseconds, and counts; see `make bench`."""

import asyncio
import multiprocessing
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from multiprocessing.sharedctypes import Synchronized

ANSWER = b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"


class _Taker(asyncio.Protocol):
    """Reads requests as urllib3 writes them: with a Content-Length, the next only after the answer."""

    def __init__(self, seen: "Synchronized[int]", delay: float) -> None:
        self._seen = seen
        self._delay = delay
        self._read = bytearray()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Remember where the answers go."""
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        """Answer where a request is whole."""
        self._read += data
        head = self._read.find(b"\r\n\r\n")
        if head < 0:
            return
        _, _, rest = bytes(self._read[:head]).lower().partition(b"content-length:")
        if len(self._read) < head + 4 + int(rest.split(b"\r\n", 1)[0]):
            return
        self._read.clear()
        if self._delay:
            asyncio.get_running_loop().call_later(self._delay, self._answer)
        else:
            self._answer()

    def _answer(self) -> None:
        self._seen.value += 1
        self._transport.write(ANSWER)  # type: ignore[attr-defined]


def _serve(listener: socket.socket, seen: "Synchronized[int]", delay: float) -> None:
    async def forever() -> None:
        server = await asyncio.get_running_loop().create_server(lambda: _Taker(seen, delay), sock=listener)
        await server.serve_forever()

    asyncio.run(forever())


@contextmanager
def destination(delay: float = 0.0) -> Iterator[tuple[int, "Synchronized[int]"]]:
    """Run one that takes *delay* seconds; gives its port and how many requests it has answered so far."""
    context = multiprocessing.get_context("fork")
    seen = context.Value("q", 0, lock=False)
    with socket.create_server(("127.0.0.1", 0), backlog=128) as listener:
        process = context.Process(target=_serve, args=(listener, seen, delay), daemon=True)
        process.start()
        try:
            yield listener.getsockname()[1], seen
        finally:
            process.terminate()
            process.join()
