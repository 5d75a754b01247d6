"""One order per person, though Meta sends events now with the number, now with the user id. Run for each store."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing
from pathlib import Path
from typing import Any

import pytest

from service.config import InboxUrl, inbox_url
from service.events import Event
from service.outcomes import DeadLetterReason
from service.relay.destinations import Destination
from service.relay.planner import Planner
from service.storage import engines
from service.storage.deliveries import Attempt, Claim, ExpiryLimits, QueueKind, Ruling, Settlement, Verdict, planned
from service.storage.delivery_policy import DELIVERY_POLICY
from service.storage.engine import DeliveryStore
from service.storage.identities import Identities, by_identifiers
from service.storage.protocols import Inbox, Log, Terms
from tests.support.engines import Servers
from tests.support.events import DAY, NOW, event
from tests.support.instruments import relay_instruments

LEASE = 60_000
ANN, BOB, NEW_ANN = "US.1", "US.2", "US.3"
NUMBER, NEW_NUMBER = "16505550001", "16505550002"


def seen(number: int, userid: str | None = None, waid: str | None = None, **more: str | None) -> Event:
    """Return an event as `parse` makes it: the key has the user id, else the number."""
    subject = userid or waid
    values = {"subject": subject, "partitionkey": f"106:{subject}", "userid": userid, "waid": waid, "test": False}
    return Event(**{**{name: getattr(event(number), name) for name in Event.__struct_fields__}, **values, **more})


class World:
    """An inbox, and relays that share its state; the time is an argument."""

    def __init__(self, url: InboxUrl, stack: ExitStack) -> None:
        self.url = url
        self.stack = stack
        self.inbox: Inbox = stack.enter_context(closing(engines.load(url).inbox_opener(url, Terms(DAY, DAY))()))
        self.log: Log = stack.enter_context(closing(engines.open_log(url)))
        self.state = self.relay()

    def relay(self) -> DeliveryStore:
        """Return the state, opened by another relay."""
        store = engines.deliveries(self.url).open(self.url)
        self.stack.callback(store.close)
        return store

    def put(self, *events: Event) -> None:
        self.inbox.put(events)

    def plan(self, *names: str, types: tuple[str, ...] = ()) -> None:
        """Read the log to its end, as a relay does for these destinations, which are those of the file."""
        planner, destinations = self.planner(*names, types=types)
        planner.join(destinations)
        while planner.plan(destinations):
            pass

    def plan_page(self, name: str) -> dict[str, int]:
        """Read a page for this destination alone; return the positions of all."""
        planner, destinations = self.planner(name)
        planner.plan(destinations)
        return dict(self.state.work.positions())

    def planner(self, *names: str, types: tuple[str, ...] = ()) -> tuple[Planner, dict[str, Destination]]:
        """Return a planner, and these destinations."""
        planner = Planner(
            self.state.work,
            lambda: self.log,
            instruments=relay_instruments(clock=lambda: NOW),
            policy=DELIVERY_POLICY,
            retention_ms=DAY,
        )
        values: dict[str, Any] = {"url": "https://a.example", "format": "meta", "secretFile": "x", "from": "beginning"}
        destinations = {
            name: Destination.model_validate({**values, "name": name, "types": list(types)}) for name in names
        }
        return planner, destinations

    def number_of(self, claim: Claim) -> int:
        """Return which event of the log it is, from 1: positions may start anywhere."""
        return [record.position for record in self.log.read(0, 1000)].index(claim.position) + 1

    def claim(self, name: str = "bot", *, now: int = NOW, store: DeliveryStore | None = None) -> list[Claim]:
        """Claim every queue whose first event may be attempted."""
        work = (store or self.state).work
        claims: list[Claim] = []
        for kind in QueueKind:
            claims += work.claim(name, 100, kind, now=now, lease=LEASE)
        return sorted(claims, key=lambda claim: claim.position)

    def positions(self, name: str = "bot", *, now: int = NOW) -> list[int]:
        """Claim, and return which events these are."""
        return [self.number_of(claim) for claim in self.claim(name, now=now)]

    def settle(self, claim: Claim, verdict: Verdict = Verdict.DELIVERED, due: int = 0) -> None:
        attempt = Attempt(NOW, 0.1, 200 if verdict is Verdict.DELIVERED else 500, "x")
        reason = DeadLetterReason.EXPIRED if verdict is Verdict.DEAD_LETTER else None
        self.state.work.settle([Settlement(claim, attempt, Ruling(verdict, due=due, reason=reason))])

    def deliver_all(self, name: str = "bot", *, now: int = NOW) -> list[int]:
        """Deliver everything; return the events in the order of their deliveries."""
        order: list[int] = []
        while True:
            now += 2000
            claims = self.claim(name, now=now)
            if not claims:
                return order
            for claim in claims:
                order.append(self.number_of(claim))
                self.settle(claim)


STORES: dict[str, Callable[[Path, Servers], str]] = {
    "sqlite": lambda directory, _: f"sqlite://{directory}/inbox.db",
    "postgresql": lambda _, servers: servers.postgresql().new_database(),
}


@pytest.fixture(params=[pytest.param(name, marks=pytest.mark.needs(name)) for name in STORES])
def world(request: pytest.FixtureRequest, tmp_path: Path, servers: Servers) -> Iterator[World]:
    with ExitStack() as stack:
        yield World(inbox_url(STORES[request.param](tmp_path, servers)), stack)


def test_number_then_user_id(world: World) -> None:
    """An event with the user id waits for the one with the number, and the other way round."""
    world.put(seen(1, waid=NUMBER), seen(2, ANN, NUMBER), seen(3, waid=NUMBER), seen(4, ANN), seen(5, BOB))
    world.plan("bot")
    first, others = world.claim()
    assert list(map(world.number_of, (first, others))) == [1, 5]
    assert world.positions(now=NOW + 30_000) == [], "2 waits though its queue is due"
    world.settle(first)
    assert world.positions(now=NOW + 32_000) == [2], "3 waits for 2, in another queue"


def test_the_order_is_that_of_the_log(world: World) -> None:
    """Whatever the identifiers; an event before the pair is known is not held back."""
    world.put(
        *(
            seen(number, *identifiers)
            for number, identifiers in enumerate([(None, NUMBER), (ANN, NUMBER), (None, NUMBER), (ANN,)] * 5)
        )
    )
    world.plan("bot")
    assert world.deliver_all() == list(range(1, 21))


def test_a_retry_holds_back_the_person(world: World) -> None:
    """Until it is delivered or given up; a dead letter ends the wait."""
    world.put(seen(1, ANN, NUMBER), seen(2, waid=NUMBER))
    world.plan("bot")
    (first,) = world.claim()
    world.settle(first, Verdict.RETRY, due=NOW + 10_000)
    assert world.positions(now=NOW + 5000) == []
    (again,) = world.claim(now=NOW + 10_000)
    assert world.number_of(again) == 1
    world.settle(again, Verdict.DEAD_LETTER)
    assert world.positions(now=NOW + 20_000) == [2]


def test_a_recycled_number(world: World) -> None:
    """Events with the number belong to its new owner from the first event that shows the pair."""
    world.put(
        seen(1, ANN, NUMBER),
        seen(2, waid=NUMBER),  # Ann's
        seen(3, BOB, NUMBER),
        seen(4, waid=NUMBER),  # Bob's
        seen(5, ANN),
        seen(6, BOB),
    )
    world.plan("bot")
    first, bobs = world.claim()
    assert list(map(world.number_of, (first, bobs))) == [1, 3], "Bob's first does not wait for Ann's"
    world.settle(first, Verdict.RETRY, due=NOW + 50_000)
    world.settle(bobs)
    assert world.positions(now=NOW + 2000) == [], "2 and 5 wait for 1; 4 is behind 2 in one queue, 6 waits for 4"
    assert world.deliver_all(now=NOW + 50_000) == [1, 2, 4, 5, 6]


def test_a_later_destination_gets_the_same_order(world: World) -> None:
    """It reads from the beginning when all pairs are known, and plans as the first one did."""
    world.put(seen(1, waid=NUMBER), seen(2, ANN, NUMBER), seen(3, BOB, NUMBER), seen(4, waid=NUMBER), seen(5, ANN))
    world.plan("bot")
    world.plan("bot", "late")
    for name in ("bot", "late"):
        first, second = world.claim(name)
        assert list(map(world.number_of, (first, second))) == [1, 3]
        world.settle(first)
        assert world.positions(name, now=NOW + 2000) == [2]
    assert world.state.records.identities.learned() == world.log.last()


def test_two_destinations_far_apart(world: World) -> None:
    """What is learned for one while the other is behind does not change what the other's positions mean."""
    world.put(*(seen(number, waid=NUMBER) for number in range(3)))
    world.plan("slow", "quick")
    world.put(seen(3, ANN, NUMBER), seen(4, ANN), seen(5, BOB, NUMBER), seen(6, waid=NUMBER))
    planned_far = world.plan_page("quick")
    assert planned_far["quick"] > planned_far["slow"]
    quick = world.deliver_all("quick")
    world.plan("quick", "slow")
    assert world.deliver_all("slow") == quick
    assert [number for number in quick if number not in (6, 7)] == [1, 2, 3, 4, 5], "Ann's, in the order of the log"
    assert quick.index(6) < quick.index(7)


def test_a_lease_of_another_relay_on_the_old_queue(world: World) -> None:
    """It is waited for, also after it expired: the event is still pending."""
    other = world.relay()
    world.put(seen(1, ANN, NUMBER), seen(2, waid=NUMBER))
    world.plan("bot")
    (leased,) = world.claim(store=other)
    assert world.number_of(leased) == 1
    assert world.claim(now=NOW + 2000) == []
    (again,) = world.claim(now=NOW + LEASE + 2000)
    assert world.number_of(again) == 1
    world.settle(again)
    assert world.positions(now=NOW + LEASE + 4000) == [2]


def test_pairs_are_learned_from_events_that_nobody_gets(world: World) -> None:
    """The filter of a destination does not matter."""
    hidden = "com.whatsapp.status.read"
    world.put(seen(1, ANN, NUMBER, type=hidden), seen(2, waid=NUMBER), seen(3, ANN))
    world.plan("bot", types=("com.whatsapp.message.*",))
    assert world.positions() == [2]
    assert world.positions(now=NOW + 2000) == []


def test_an_identity_change_joins_old_and_new(world: World) -> None:
    """The new identifiers continue the old person's order; the next owner of the old number is another person."""
    world.put(
        seen(1, ANN, NUMBER),
        seen(2, NEW_ANN, NEW_NUMBER, previoususerid=ANN, previouswaid=NUMBER),
        seen(3, waid=NEW_NUMBER),
        seen(4, waid=NUMBER),
    )
    world.plan("bot")
    first, stranger = world.claim()
    assert list(map(world.number_of, (first, stranger))) == [1, 4]
    world.settle(first, Verdict.RETRY, due=NOW + 10_000)
    assert world.positions(now=NOW + 5000) == []
    assert world.deliver_all(now=NOW + 10_000) == [1, 2, 3]


def test_a_replay_has_the_same_order(world: World) -> None:
    """A replay uses the same function: deliveries that are pending before it in the person's other queue come first."""
    world.put(seen(1, ANN, NUMBER), seen(2, waid=NUMBER))
    world.plan("bot")
    assert world.deliver_all() == [1, 2]
    records = world.log.read(0, 10)
    identities = Identities(world.state.records.identities.pairs(by_identifiers(records)))
    world.state.records.replay("bot", [planned(each, identities) for each in records], now=NOW)
    assert world.deliver_all() == [1, 2]


def test_pairs_are_pruned_and_erased(world: World) -> None:
    """No longer than the retention after the last event that used them."""
    world.put(seen(1, ANN, NUMBER), seen(2, BOB, NEW_NUMBER))
    world.plan("bot")
    state = world.state
    assert len(state.work.identities.pairs([("106", ANN), ("106", BOB)])) == 2
    state.records.erase((), [ANN])
    assert [pair.userid for pair in state.work.identities.pairs([("106", ANN), ("106", NUMBER), ("106", BOB)])] == [BOB]
    for later, left in ((DAY - 1, 1), (DAY + 1, 0)):
        state.work.expire(0, ExpiryLimits(DELIVERY_POLICY, DAY, DAY), now=NOW + later, max_ages_ms={})
        assert len(state.work.identities.pairs([("106", BOB)])) == left


def test_two_relays_learn_once(world: World) -> None:
    """The second one that reads the same positions stores nothing."""
    world.put(seen(1, ANN, NUMBER))
    world.plan("bot")
    assert not world.relay().work.identities.learn(0, 1, [])
    assert world.state.work.identities.learned() == world.log.last()
