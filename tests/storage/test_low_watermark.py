"""The low-watermark: which events the receiver must not purge, because the relay still needs them."""

import sys
import time
from contextlib import closing
from pathlib import Path

import apsw
import pytest

from service.config import InboxUrl, inbox_url
from service.errors import InboxUnavailable
from service.storage import engines, low_watermark
from service.storage.deliveries import ExpiryLimits
from service.storage.delivery_policy import DELIVERY_POLICY, DeliveryPolicy
from service.storage.low_watermark import LowWatermark
from service.storage.sqlite.delivery_database import PRE_RELEASE_APPLICATION_ID
from service.telemetry import logs
from tests.support.engines import Servers

NOW = 1_795_000_000_000
MINUTE = 60_000


@pytest.fixture(params=["sqlite", pytest.param("postgresql", marks=pytest.mark.needs("postgresql"))])
def url(request: pytest.FixtureRequest, tmp_path: Path, servers: Servers) -> InboxUrl:
    if request.param == "sqlite":
        return inbox_url(f"sqlite://{tmp_path}/inbox.db")
    return inbox_url(servers.postgresql().new_database())


def test_the_low_watermark_is_that_of_the_slowest_destination(url: InboxUrl) -> None:
    """It is None without a relay's state."""
    watermark = low_watermark.of(url)
    assert watermark(NOW) is None
    state = engines.deliveries(url).open(url)
    state.work.join({"bot": 7}, now=NOW)
    state.work.expire(0, ExpiryLimits(DeliveryPolicy(max_age_ms=1), 1, 1), now=NOW, max_ages_ms={})
    assert watermark(NOW) == 8
    state.close()


def test_an_unreadable_file_stops_the_purge(tmp_path: Path) -> None:
    """If the relay's state can't be read, all events are needed."""
    (tmp_path / "relay.db").write_bytes(b"no database " * 1000)
    assert low_watermark.of(inbox_url(f"sqlite://{tmp_path}/inbox.db"))(time.time_ns() // 1_000_000) == 0


def test_an_empty_file_does_not_stop_the_purge(tmp_path: Path) -> None:
    """A relay is just creating it, or could not on a full disk: no event is needed."""
    (tmp_path / "relay.db").touch()
    assert low_watermark.of(inbox_url(f"sqlite://{tmp_path}/inbox.db"))(NOW) is None


def test_a_relay_that_was_removed_does_not_stop_the_purge_forever(url: InboxUrl) -> None:
    """Its events are kept until its last heartbeat is older than the maximum delivery age plus a day."""
    state = engines.deliveries(url).open(url)
    state.work.join({"bot": 7}, now=NOW)
    state.work.expire(0, ExpiryLimits(DeliveryPolicy(max_age_ms=1), 1, 1), now=NOW, max_ages_ms={})
    state.close()
    watermark = low_watermark.of(url)
    assert watermark(NOW + DELIVERY_POLICY.max_heartbeat_age_ms - 1) == 8
    assert watermark(NOW + DELIVERY_POLICY.max_heartbeat_age_ms) is None
    assert watermark(NOW - 86_400_000) == 8
    assert watermark(NOW - 86_400_001) is None, "its clock was ahead"
    assert watermark.refresh(NOW) == NOW


def test_a_damaged_file_does_not_stop_the_purge_forever(tmp_path: Path) -> None:
    """Its modification time counts as the last heartbeat."""
    (tmp_path / "relay.db").write_bytes(b"no database " * 1000)
    written = int((tmp_path / "relay.db").stat().st_mtime * 1000)
    watermark = low_watermark.of(inbox_url(f"sqlite://{tmp_path}/inbox.db"))
    assert watermark(written + DELIVERY_POLICY.max_heartbeat_age_ms - 1000) == 0
    assert watermark(written + DELIVERY_POLICY.max_heartbeat_age_ms + 1000) is None


def test_a_pre_release_file_does_not_stop_the_purge_forever(tmp_path: Path) -> None:
    """It is never migrated once its relay is gone."""
    with closing(apsw.Connection(str(tmp_path / "relay.db"))) as db:
        db.execute("CREATE TABLE old (position)").fetchall()
        db.pragma("application_id", PRE_RELEASE_APPLICATION_ID)
    written = int((tmp_path / "relay.db").stat().st_mtime * 1000)
    watermark = low_watermark.of(inbox_url(f"sqlite://{tmp_path}/inbox.db"))
    assert watermark(written) == 0
    assert watermark(written + DELIVERY_POLICY.max_heartbeat_age_ms + 1000) is None


@pytest.mark.parametrize(
    ("heartbeat_age", "expected"),
    [(59 * MINUTE, None), (61 * MINUTE, "kept for 94 more hours"), (97 * 60 * MINUTE, "no longer kept")],
)
def test_an_absent_relay_is_logged(
    heartbeat_age: int, expected: str | None, capsys: pytest.CaptureFixture[str]
) -> None:
    """It is logged with a remedy once the last heartbeat is an hour old."""
    logs.configure(level="info", form="json", stream=sys.stdout)
    watermark = LowWatermark(lambda _: None, lambda: NOW)
    assert watermark.refresh(NOW + heartbeat_age) == NOW
    log = capsys.readouterr().out
    assert (expected or "") in log
    assert ("destinations drop-state" in log) is bool(expected)


def test_there_is_no_heartbeat_without_a_relay(url: InboxUrl) -> None:
    """Installations that never had a relay log nothing about it."""
    assert low_watermark.of(url).refresh(NOW) is None


def test_a_failed_query_is_not_repeated_at_once() -> None:
    """The receiver's writer runs the query, and notifications wait for it."""
    queried_at = []

    def needed(now: int) -> int:
        queried_at.append(now)
        raise InboxUnavailable("slow", "no response")

    watermark = LowWatermark(needed)
    assert [watermark(NOW), watermark(NOW + 1), watermark(NOW + 2)] == [0, 0, 0]
    assert queried_at == [NOW]
