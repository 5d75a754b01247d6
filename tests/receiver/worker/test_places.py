"""The queue of busy connections: a few run per iteration of the loop, first in, first out."""

from collections.abc import Iterator

import gevent
import pytest

from service.receiver.worker.busy_connections import CONNECTIONS_PER_TURN, TurnQueue


@pytest.fixture
def turn_queue() -> Iterator[TurnQueue]:
    queue = TurnQueue()
    yield queue
    queue.close()


def test_a_few_in_each_turn_and_in_order(turn_queue: TurnQueue) -> None:
    """A connection that waits again is last in the queue."""
    turns: list[tuple[int, int]] = []
    loop = gevent.get_hub().loop

    def busy(number: int) -> None:
        for _ in range(3):
            turn_queue.wait()
            turns.append((loop.iteration, number))

    gevent.joinall([gevent.spawn(busy, number) for number in range(3 * CONNECTIONS_PER_TURN)], raise_error=True)
    assert [number for _, number in turns] == list(range(3 * CONNECTIONS_PER_TURN)) * 3
    iterations = [iteration for iteration, _ in turns]
    assert max(map(iterations.count, iterations)) == CONNECTIONS_PER_TURN


def test_others_run_meanwhile(turn_queue: TurnQueue) -> None:
    """Other greenlets run even if the queue is never empty."""

    def busy() -> None:
        while True:
            turn_queue.wait()

    waiting = [gevent.spawn(busy) for _ in range(2 * CONNECTIONS_PER_TURN)]
    for _ in range(20):
        gevent.sleep(0)
    gevent.sleep(0.001)
    gevent.killall(waiting)


def test_a_killed_connection_does_not_use_a_turn(turn_queue: TurnQueue) -> None:
    """It may be killed while it waits, or in the iteration of its turn."""
    done: list[int] = []

    def busy(number: int) -> None:
        turn_queue.wait()
        done.append(number)
        if number == 0:
            greenlets[1].kill(block=False)

    greenlets = [gevent.spawn(busy, number) for number in range(CONNECTIONS_PER_TURN + 2)]
    gevent.sleep(0)
    greenlets[CONNECTIONS_PER_TURN].kill(block=False)
    gevent.joinall(greenlets)
    assert done == [0, *range(2, CONNECTIONS_PER_TURN), CONNECTIONS_PER_TURN + 1] or done == [
        0,
        *range(1, CONNECTIONS_PER_TURN),
        CONNECTIONS_PER_TURN + 1,
    ]
    assert all(greenlet.successful() or isinstance(greenlet.value, gevent.GreenletExit) for greenlet in greenlets)
