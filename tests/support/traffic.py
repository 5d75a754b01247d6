"""Valid notifications from several threads, to measure how they are answered while something else happens."""

import http.client
import threading
import time
from abc import ABC, abstractmethod
from collections import Counter
from typing import Self

from service import signature
from service.meta import catalogue
from tests.support.server import Server


class Senders(ABC):
    """Threads that send until the block exits: each runs `_run`, which checks `_stopping`."""

    def __init__(self, threads: int) -> None:
        self._stopping = threading.Event()
        self._threads = [threading.Thread(target=self._run) for _ in range(threads)]

    def __enter__(self) -> Self:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_raised: object) -> None:
        self._stopping.set()
        for thread in self._threads:
            thread.join()

    @abstractmethod
    def _run(self) -> None: ...


class Traffic(Senders):
    """Sends valid notifications until the block exits, and records outcomes, latencies and accepted bodies."""

    def __init__(
        self,
        server: Server,
        threads: int = 4,
        *,
        pause: float = 0.005,
        kinds: tuple[str, ...] = ("message text",),
        port: int | None = None,
    ) -> None:
        """*port* is the port of a proxy before the server, if there is one."""
        self.server, self.pause, self.kinds = server, pause, kinds
        self.port = port or server.port
        self.answers: Counter[str] = Counter()
        self.latencies: list[float] = []
        self.kept: list[bytes] = []
        super().__init__(threads)

    def _run(self) -> None:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=15)
        number = 0
        while not self._stopping.is_set():
            number += 1
            body = catalogue.notification(self.kinds[number % len(self.kinds)])
            started = time.monotonic()
            try:
                secret = self.server.secret.encode()
                connection.request("POST", "/webhooks", body, {signature.HEADER: signature.header_for(body, secret)})
                answer = connection.getresponse()
                answer.read()
                outcome = str(answer.status)
            except (OSError, http.client.HTTPException) as ex:
                outcome = type(ex).__name__
                connection.close()
            self.answers[outcome] += 1
            self.latencies.append(time.monotonic() - started)
            if outcome == "200":
                self.kept.append(body)
            time.sleep(self.pause)
        connection.close()
