"""Eviction if connections or memory run short: the slowest first, never complete requests or fast ones."""

from service.receiver.worker.slow_connections import SLOW_BYTES, WaitingConnections


class Client:
    """A fake connection that received *moved* bytes in the last second."""

    def __init__(self, moved: int = 0) -> None:
        self.held = 0
        self.has_head = self.is_answered = False
        self.evictions = 0
        self._moved = moved

    def moved(self, _now: float) -> int:
        return self._moved

    def evict(self) -> None:
        self.evictions += 1


class Room:
    """The connections of a worker with a capacity of 100, of which 16 are kept free, and 1,000 bytes."""

    def __init__(self) -> None:
        self.free = 100
        self.time = 100.0
        self.waiting = WaitingConnections(capacity=100, bytes_limit=1000, free=lambda: self.free, now=lambda: self.time)

    def enter(self, *clients: Client, age: float = 5) -> None:
        for client in clients:
            self.waiting.add_incomplete(client, self.time - age)


def evicted(*clients: Client) -> list[bool]:
    return [bool(client.evictions) for client in clients]


def test_no_connection_is_evicted_while_enough_are_free() -> None:
    """Sixteen are kept free, not more."""
    room, client = Room(), Client()
    room.enter(client)
    room.free = 16
    room.waiting.make_room()
    assert not client.evictions
    room.free = 15
    room.waiting.make_room()
    room.waiting.make_room()  # a second call evicts no other one
    assert client.evictions == 1


def test_the_oldest_slow_connections_are_evicted_first() -> None:
    """Then idle ones, then ones that are slow for less than a second; fast ones never."""
    room = Room()
    fast, slow, slower = Client(SLOW_BYTES), Client(SLOW_BYTES - 1), Client()
    idle, young = Client(), Client()
    room.enter(fast, slow, slower)
    room.enter(young, age=0.5)
    room.waiting.add_idle(idle, 0)
    for lacking, gone in enumerate([slow, slower, idle, young], start=1):
        room.free = 16 - lacking
        room.waiting.make_room()
        assert gone.evictions == 1
    room.free = 0
    room.waiting.make_room()
    assert evicted(fast, slow, slower, idle, young) == [False, True, True, True, True]


def test_above_the_limit_the_slowest_incomplete_request_is_evicted() -> None:
    """Only one if that is enough; its memory is released immediately."""
    room = Room()
    slow, fast, complete, other = Client(10), Client(500), Client(0), Client(400)
    room.enter(slow, fast, other)
    assert all(room.waiting.hold(client, 300) for client in (slow, fast, complete))
    assert room.waiting.hold(other, 100)
    assert room.waiting.hold(other, 101)
    assert evicted(slow, fast, complete, other) == [True, False, False, False]
    assert room.waiting.held == 701


def test_a_request_that_is_itself_the_slowest() -> None:
    """`hold` returns False, since its connection is running; its memory is released."""
    room = Room()
    slow, fast = Client(10), Client(500)
    room.enter(slow, fast)
    assert room.waiting.hold(fast, 800)
    assert not room.waiting.hold(slow, 300)
    assert (room.waiting.held, evicted(slow, fast)) == (800, [False, False])


def test_a_new_request_is_rejected_if_all_others_are_complete() -> None:
    """Complete requests are never evicted."""
    room = Room()
    complete, newcomer = Client(), Client(10**6)
    assert room.waiting.hold(complete, 1000)
    assert not room.waiting.hold(newcomer, 1)
    assert (room.waiting.held, evicted(complete, newcomer)) == (1000, [False, False])
    room.waiting.release(complete)
    assert room.waiting.hold(newcomer, 1000)


def test_a_removed_connection() -> None:
    """Its memory is released and it is not evicted; removing it twice is harmless."""
    room, client = Room(), Client()
    room.enter(client)
    assert room.waiting.hold(client, 1000)
    for _ in range(2):
        room.waiting.remove(client)
    assert room.waiting.held == 0
    room.free = 0
    room.waiting.make_room()
    assert not client.evictions


def test_a_connection_in_lingering_close_can_be_evicted_again() -> None:
    """After its eviction it still waits for its client to read the response, and is not free yet."""
    room, client = Room(), Client()
    room.enter(client)
    room.free = 15
    room.waiting.make_room()
    room.waiting.add_lingering(client, room.time)
    room.time += 1
    room.waiting.make_room()
    assert client.evictions == 2


def test_idle_connections_are_closed_after_their_timeout() -> None:
    """A connection whose next request has started is not idle."""
    room = Room()
    late, early, busy = Client(), Client(), Client()
    room.waiting.add_idle(late, 99.9)
    room.waiting.add_idle(early, 100.1)
    room.waiting.add_idle(busy, 99.9)
    room.waiting.remove_idle(busy)
    room.waiting.close_expired()
    assert evicted(late, early, busy) == [True, False, False]
    room.waiting.close_idle()
    assert evicted(late, early, busy) == [True, True, False]


def test_aborting_requests_at_shutdown() -> None:
    """It aborts those that are due, and returns how many of them had no response."""
    room = Room()
    one, other, answered = Client(), Client(9), Client()
    answered.is_answered = True
    room.enter(one, other, answered)
    assert room.waiting.abort(lambda client: client.moved(0) == 0) == 1
    assert evicted(one, other, answered) == [True, False, True]
