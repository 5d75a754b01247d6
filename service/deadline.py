"""One deadline for a call that can block in several places, such as connecting, a slow response or an endless body."""

import queue
import threading
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")


def within(seconds: float, do: Callable[[], T]) -> T:
    """Run *do* in a thread; return its result, or raise its exception.

    Raises TimeoutError after *seconds*; the thread is left running.
    """
    result: queue.SimpleQueue[tuple[T | None, BaseException | None]] = queue.SimpleQueue()

    def run() -> None:
        try:
            result.put((do(), None))
        except BaseException as ex:  # noqa: BLE001  raised again in the calling thread
            result.put((None, ex))

    threading.Thread(target=run, daemon=True).start()
    try:
        value, raised = result.get(timeout=seconds)
    except queue.Empty:
        raise TimeoutError from None
    if raised is not None:
        raise raised
    return value  # type: ignore[return-value]
