"""Who gives way when places or memory run short: the slowest, and never what is complete or moves."""

from service.receiver.worker.slow_connections import SLOW_BYTES, WaitingConnections


class Client:
    """A connection that says how it moves."""

    def __init__(self, moved: int = 0) -> None:
        self.held = 0
        self.has_head = self.is_answered = False
        self.displaced = 0
        self._moved = moved

    def moved(self, _now: float) -> int:
        return self._moved

    def evict(self) -> None:
        self.displaced += 1


class Room:
    """A waiting room of a hundred places, of which sixteen are to be free, and a thousand bytes."""

    def __init__(self) -> None:
        self.free = 100
        self.time = 100.0
        self.waiting = WaitingConnections(capacity=100, bytes_limit=1000, free=lambda: self.free, now=lambda: self.time)

    def enter(self, *clients: Client, age: float = 5) -> None:
        for client in clients:
            self.waiting.add_incomplete(client, self.time - age)


def displaced(*clients: Client) -> list[bool]:
    return [bool(client.displaced) for client in clients]


def test_nobody_gives_way_while_there_is_room() -> None:
    """Sixteen places are kept free, not more."""
    room, client = Room(), Client()
    room.enter(client)
    room.free = 16
    room.waiting.make_room()
    assert not client.displaced
    room.free = 15
    room.waiting.make_room()
    room.waiting.make_room()  # its place is as good as free
    assert client.displaced == 1


def test_the_oldest_of_the_slow_go_first() -> None:
    """Then idle ones, then those that are slow for less than a second; whoever moves never does."""
    room = Room()
    fast, slow, slower = Client(SLOW_BYTES), Client(SLOW_BYTES - 1), Client()
    idle, young = Client(), Client()
    room.enter(fast, slow, slower)
    room.enter(young, age=0.5)
    room.waiting.add_idle(idle, 0)
    for lacking, gone in enumerate([slow, slower, idle, young], start=1):
        room.free = 16 - lacking
        room.waiting.make_room()
        assert gone.displaced == 1
    room.free = 0
    room.waiting.make_room()
    assert displaced(fast, slow, slower, idle, young) == [False, True, True, True, True]


def test_above_the_limit_the_slowest_unfinished_gives_way() -> None:
    """One, if that is enough; what it held is given back at once."""
    room = Room()
    slow, fast, complete, other = Client(10), Client(500), Client(0), Client(400)
    room.enter(slow, fast, other)
    assert all(room.waiting.hold(client, 300) for client in (slow, fast, complete))
    assert room.waiting.hold(other, 100)
    assert room.waiting.hold(other, 101)
    assert displaced(slow, fast, complete, other) == [True, False, False, False]
    assert room.waiting.held == 701


def test_one_that_is_the_slowest_itself_gives_way() -> None:
    """It is told so, as it is running; it holds nothing then."""
    room = Room()
    slow, fast = Client(10), Client(500)
    room.enter(slow, fast)
    assert room.waiting.hold(fast, 800)
    assert not room.waiting.hold(slow, 300)
    assert (room.waiting.held, displaced(slow, fast)) == (800, [False, False])


def test_where_all_are_complete_the_newcomer_is_refused() -> None:
    """Complete requests never give way."""
    room = Room()
    complete, newcomer = Client(), Client(10**6)
    assert room.waiting.hold(complete, 1000)
    assert not room.waiting.hold(newcomer, 1)
    assert (room.waiting.held, displaced(complete, newcomer)) == (1000, [False, False])
    room.waiting.release(complete)
    assert room.waiting.hold(newcomer, 1000)


def test_who_is_gone_holds_nothing() -> None:
    """Neither memory nor a place; twice is once."""
    room, client = Room(), Client()
    room.enter(client)
    assert room.waiting.hold(client, 1000)
    for _ in range(2):
        room.waiting.remove(client)
    assert room.waiting.held == 0
    room.free = 0
    room.waiting.make_room()
    assert not client.displaced


def test_who_lingers_gives_way_again() -> None:
    """One that was displaced has its answer to read, and its place is not free yet."""
    room, client = Room(), Client()
    room.enter(client)
    room.free = 15
    room.waiting.make_room()
    room.waiting.add_lingering(client, room.time)
    room.time += 1
    room.waiting.make_room()
    assert client.displaced == 2


def test_idle_ones_wait_until_their_time() -> None:
    """Not longer; one whose request begins is none."""
    room = Room()
    late, early, busy = Client(), Client(), Client()
    room.waiting.add_idle(late, 99.9)
    room.waiting.add_idle(early, 100.1)
    room.waiting.add_idle(busy, 99.9)
    room.waiting.remove_idle(busy)
    room.waiting.close_expired()
    assert displaced(late, early, busy) == [True, False, False]
    room.waiting.close_idle()
    assert displaced(late, early, busy) == [True, True, False]


def test_a_stop_cuts_whom_it_may() -> None:
    """And says how many."""
    room = Room()
    one, other, answered = Client(), Client(9), Client()
    answered.is_answered = True
    room.enter(one, other, answered)
    assert room.waiting.abort(lambda client: client.moved(0) == 0) == 1
    assert displaced(one, other, answered) == [True, False, True]
