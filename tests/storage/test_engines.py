"""The table of engines: all that a new one needs."""

import sys
from contextlib import closing
from pathlib import Path

import pytest

from service.cli.load_config import configured
from service.errors import ConfigurationError
from service.storage import engines, low_watermark
from service.storage.protocols import Outcome, Terms
from service.storage.url_reload import InboxSource
from tests.support.events import DAY, HOUR, NOW, event

TOY = """
from service.storage.engine import Engine
from service.storage.memory import MemoryInbox

def _inbox_opener(url, terms):
    return lambda: MemoryInbox(retention=terms.retention)

def _open_erasure(url):
    raise NotImplementedError

ENGINE = Engine(
    name="toy",
    problems=lambda url: [] if url.text.endswith("/box") else ["wants a box: toy://host/box"],
    inbox_opener=_inbox_opener,
    open_erasure=_open_erasure,
    no_log="A toy is read by nobody.",
    has_several_writers=False,
)
"""


@pytest.fixture
def _toy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "toy_engine.py").write_text(TOY)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setitem(engines.PACKAGES, "toy", "toy_engine")
    monkeypatch.delitem(sys.modules, "toy_engine", raising=False)


@pytest.mark.usefixtures("_toy")
def test_an_engine_is_a_package_and_a_row() -> None:
    """Its URL is checked, its inbox is written, and what it can't do is said, with no other place that names it."""
    url = configured({"WEBHOOK_INBOX": "toy://host/box"}).inbox
    assert (url.engine, engines.problems(url)) == ("toy", [])
    with closing(InboxSource(url, Terms(HOUR, HOUR))()) as inbox:
        assert inbox.put([event(1), event(1)]) == [Outcome.NEW, Outcome.DUPLICATE]
    assert low_watermark.of(url)(NOW) is None
    assert low_watermark.of(url).refresh(NOW + DAY) is None
    for impossible in (engines.open_log, engines.deliveries):
        with pytest.raises(ConfigurationError, match=r"^A toy is read by nobody\.$"):
            impossible(url)


@pytest.mark.usefixtures("_toy")
@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({"WEBHOOK_INBOX": "toy://host/jar"}, "WEBHOOK_INBOX wants a box: toy://host/box."),
        ({"WEBHOOK_INBOX": "toy:///box"}, "WEBHOOK_INBOX wants a host: toy://host/name."),
        ({"WEBHOOK_WORKERS": "2"}, "WEBHOOK_WORKERS is above 1, and toy serves one worker of one pod: set it to 1."),
        (
            {"WEBHOOK_INBOX": "joy://host/box"},
            f"WEBHOOK_INBOX knows the engines {', '.join(engines.PACKAGES)}, toy only, such as sqlite:///var/lib/inbox.db.",
        ),
    ],
)
def test_what_is_wrong_with_its_settings(changes: dict[str, str], problem: str) -> None:
    """One sentence, with what to do."""
    with pytest.raises(ConfigurationError) as refused:
        configured({"WEBHOOK_INBOX": "toy://host/box"} | changes)
    assert refused.value.problems == (problem,)


def test_a_client_that_is_not_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    """It is said how to install it."""
    monkeypatch.setitem(engines.PACKAGES, "absent", "no_such_package")
    with pytest.raises(ConfigurationError, match=r"pip install 'whatsapp-webhook\[absent\]'"):
        configured({"WEBHOOK_INBOX": "absent://host/name"})
