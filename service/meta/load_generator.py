"""Load at a steady rate; latency is measured from when a notification was due, not from when it was sent."""

import queue
import threading
import time
from collections import Counter
from dataclasses import dataclass, field
from typing import Final

import urllib3
from rich.console import Console
from rich.progress import Progress

from service import signature
from service.meta import catalogue

MAX_SENDERS: Final = 32
LOAD_TIMEOUT_SECONDS: Final = 10.0


@dataclass(slots=True)
class LoadResult:
    """The responses by status or error, and the latencies in milliseconds."""

    seconds: float = 0.0
    answers: Counter[str] = field(default_factory=Counter)
    latencies: list[float] = field(default_factory=list)

    @property
    def sent(self) -> int:
        """Return how many notifications were answered or failed."""
        return sum(self.answers.values())

    def percentile(self, share: float) -> float:
        """Return the latency that *share* percent of the notifications did not exceed."""
        ranked = sorted(self.latencies)
        return ranked[min(int(len(ranked) * share / 100), len(ranked) - 1)] if ranked else 0.0


def run(console: Console, url: str, secret: bytes, *, rate: float, seconds: float) -> LoadResult:
    """Send *rate* text messages a second for *seconds*, on kept-alive connections, and show a progress bar."""
    result = LoadResult()
    due: queue.SimpleQueue[float | None] = queue.SimpleQueue()
    http = urllib3.PoolManager(retries=False, timeout=LOAD_TIMEOUT_SECONDS, maxsize=MAX_SENDERS, block=True)
    senders = [
        threading.Thread(target=_send_all, args=(due, http, url, secret, result), daemon=True)
        for _ in range(MAX_SENDERS)
    ]
    for sender in senders:
        sender.start()
    started = time.perf_counter()
    with Progress(console=console, transient=True) as bar:
        task = bar.add_task("sending", total=int(rate * seconds))
        for number in range(int(rate * seconds)):
            at = started + number / rate
            time.sleep(max(at - time.perf_counter(), 0))
            due.put(at)
            bar.update(task, completed=result.sent)
        for _ in senders:
            due.put(None)
        for sender in senders:
            sender.join()
    result.seconds = time.perf_counter() - started
    return result


def _send_all(
    due: "queue.SimpleQueue[float | None]", http: urllib3.PoolManager, url: str, secret: bytes, result: LoadResult
) -> None:
    while (at := due.get()) is not None:
        body = catalogue.notification("message text")
        headers = {"Content-Type": "application/json", signature.HEADER: signature.header_for(body, secret)}
        try:
            answer = str(http.request("POST", url, body=body, headers=headers).status)
        except urllib3.exceptions.HTTPError as ex:
            answer = type(ex).__name__
        result.latencies.append((time.perf_counter() - at) * 1000)
        result.answers[answer] += 1
