"""A deadline for all of what may wait in many places: a connection, a head that drips, a body without an end."""

import queue
import threading
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")


def within(seconds: float, do: Callable[[], T]) -> T:
    """Give what *do* gives, or raise what it raises; raises TimeoutError after *seconds*, and leaves it behind."""
    found: queue.SimpleQueue[tuple[T | None, BaseException | None]] = queue.SimpleQueue()

    def run() -> None:
        try:
            found.put((do(), None))
        except BaseException as ex:  # noqa: BLE001  it is raised again, where it is waited for
            found.put((None, ex))

    threading.Thread(target=run, daemon=True).start()
    try:
        value, raised = found.get(timeout=seconds)
    except queue.Empty:
        raise TimeoutError from None
    if raised is not None:
        raise raised
    return value  # type: ignore[return-value]
