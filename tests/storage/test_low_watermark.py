"""What the receiver must not purge, as the relay's state says it."""

import sys
import time
from contextlib import closing
from pathlib import Path

import apsw
import pytest

from service.config import InboxUrl, inbox_url
from service.errors import InboxUnavailable
from service.storage import engines, low_watermark
from service.storage.delivery_policy import DELIVERY_POLICY, DeliveryPolicy
from service.storage.low_watermark import LowWatermark
from service.storage.sqlite.delivery_database import OLDER_APPLICATION_ID
from service.telemetry import logs
from tests.support.engines import Servers

NOW = 1_795_000_000_000
MINUTE = 60_000


@pytest.fixture(params=["sqlite", pytest.param("postgresql", marks=pytest.mark.needs("postgresql"))])
def url(request: pytest.FixtureRequest, tmp_path: Path, servers: Servers) -> InboxUrl:
    if request.param == "sqlite":
        return inbox_url(f"sqlite://{tmp_path}/inbox.db")
    return inbox_url(servers.postgresql().new_database())


def test_the_receiver_asks_the_relays_state(url: InboxUrl) -> None:
    """No state, nothing needed; else what the slowest destination still has to get."""
    hold = low_watermark.of(url)
    assert hold(NOW) is None
    state = engines.deliveries(url).open(url)
    state.work.join({"bot": 7}, now=NOW)
    state.work.expire(0, now=NOW, policy=DeliveryPolicy(max_age_ms=1), dead_letter_age_ms=1)
    assert hold(NOW) == 8
    state.close()


def test_a_file_that_is_none(tmp_path: Path) -> None:
    """One that can't be read needs everything."""
    (tmp_path / "relay.db").write_bytes(b"no database " * 1000)
    assert low_watermark.of(inbox_url(f"sqlite://{tmp_path}/inbox.db"))(time.time_ns() // 1_000_000) == 0


def test_a_file_that_is_just_being_made(tmp_path: Path) -> None:
    """Or that could not be made, on a full disk: it needs nothing, and must not hold back for ever."""
    (tmp_path / "relay.db").touch()
    assert low_watermark.of(inbox_url(f"sqlite://{tmp_path}/inbox.db"))(NOW) is None


def test_a_relay_that_was_tried_once_and_removed(url: InboxUrl) -> None:
    """It holds events back for the maximum delivery age and a day, then nothing: the purge goes on."""
    state = engines.deliveries(url).open(url)
    state.work.join({"bot": 7}, now=NOW)
    state.work.expire(0, now=NOW, policy=DeliveryPolicy(max_age_ms=1), dead_letter_age_ms=1)
    state.close()
    hold = low_watermark.of(url)
    assert hold(NOW + DELIVERY_POLICY.max_heartbeat_age_ms - 1) == 8
    assert hold(NOW + DELIVERY_POLICY.max_heartbeat_age_ms) is None
    assert hold(NOW - 86_400_000) == 8
    assert hold(NOW - 86_400_001) is None, "its clock ran ahead"
    assert hold.refresh(NOW) == NOW


def test_a_damaged_file_does_not_stop_the_purge_for_good(tmp_path: Path) -> None:
    """When it was last written counts as the last sign of life."""
    (tmp_path / "relay.db").write_bytes(b"no database " * 1000)
    written = int((tmp_path / "relay.db").stat().st_mtime * 1000)
    hold = low_watermark.of(inbox_url(f"sqlite://{tmp_path}/inbox.db"))
    assert hold(written + DELIVERY_POLICY.max_heartbeat_age_ms - 1000) == 0
    assert hold(written + DELIVERY_POLICY.max_heartbeat_age_ms + 1000) is None


def test_a_file_of_an_earlier_version_does_not_stop_the_purge_for_good(tmp_path: Path) -> None:
    """Nobody migrates it once its relay is gone."""
    with closing(apsw.Connection(str(tmp_path / "relay.db"))) as db:
        db.execute("CREATE TABLE owed (position)").fetchall()
        db.pragma("application_id", OLDER_APPLICATION_ID)
    written = int((tmp_path / "relay.db").stat().st_mtime * 1000)
    hold = low_watermark.of(inbox_url(f"sqlite://{tmp_path}/inbox.db"))
    assert hold(written) == 0
    assert hold(written + DELIVERY_POLICY.max_heartbeat_age_ms + 1000) is None


@pytest.mark.parametrize(
    ("silent", "said"),
    [(59 * MINUTE, None), (61 * MINUTE, "kept for 94 more hours"), (97 * 60 * MINUTE, "kept no longer")],
)
def test_a_relay_that_is_missed_is_said(silent: int, said: str | None, capsys: pytest.CaptureFixture[str]) -> None:
    """From the first hour on, with what to do."""
    logs.configure(level="info", form="json", stream=sys.stdout)
    hold = LowWatermark(lambda _: None, lambda: NOW)
    assert hold.refresh(NOW + silent) == NOW
    told = capsys.readouterr().out
    assert (said or "") in told
    assert ("destinations drop-state" in told) is bool(said)


def test_without_a_relay_nothing_is_missed(url: InboxUrl) -> None:
    """Most installations of a stream, and many of the others, have none."""
    assert low_watermark.of(url).refresh(NOW) is None


def test_what_can_not_be_asked_is_not_asked_again_at_once() -> None:
    """The receiver's writer asks, and notifications wait for it."""
    asked = []

    def needed(now: int) -> int:
        asked.append(now)
        raise InboxUnavailable("slow", "no answer")

    hold = LowWatermark(needed)
    assert [hold(NOW), hold(NOW + 1), hold(NOW + 2)] == [0, 0, 0]
    assert asked == [NOW]
