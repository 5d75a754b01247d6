"""The table of engines: a new engine needs only its package and a row."""

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
    problems=lambda url: [] if url.text.endswith("/box") else ["requires a box: toy://host/box"],
    inbox_opener=_inbox_opener,
    open_erasure=_open_erasure,
    no_log="A toy has no log.",
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
    """Its URL is checked, its inbox works, and a missing capability is an error; no other module names it."""
    url = configured({"WEBHOOK_INBOX": "toy://host/box"}).inbox
    assert (url.engine, engines.problems(url)) == ("toy", [])
    with closing(InboxSource(url, Terms(HOUR, HOUR))()) as inbox:
        assert inbox.put([event(1), event(1)]) == [Outcome.NEW, Outcome.DUPLICATE]
    assert low_watermark.of(url)(NOW) is None
    assert low_watermark.of(url).refresh(NOW + DAY) is None
    for impossible in (engines.open_log, engines.deliveries):
        with pytest.raises(ConfigurationError, match=r"^A toy has no log\.$"):
            impossible(url)


@pytest.mark.usefixtures("_toy")
@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({"WEBHOOK_INBOX": "toy://host/jar"}, "WEBHOOK_INBOX requires a box: toy://host/box."),
        ({"WEBHOOK_INBOX": "toy:///box"}, "WEBHOOK_INBOX requires a host: toy://host/name."),
        (
            {"WEBHOOK_WORKERS": "2"},
            "WEBHOOK_WORKERS is above 1, but toy supports only one worker in one pod: set it to 1.",
        ),
        (
            {"WEBHOOK_INBOX": "joy://host/box"},
            f"WEBHOOK_INBOX must name an engine: {', '.join(engines.PACKAGES)}, toy. Example: sqlite:///var/lib/inbox.db.",
        ),
    ],
)
def test_invalid_settings_are_rejected(changes: dict[str, str], problem: str) -> None:
    """The error is one problem with its remedy."""
    with pytest.raises(ConfigurationError) as raised:
        configured({"WEBHOOK_INBOX": "toy://host/box"} | changes)
    assert raised.value.problems == (problem,)


def test_a_client_library_that_is_not_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    """The error contains the command that installs it."""
    monkeypatch.setitem(engines.PACKAGES, "absent", "no_such_package")
    with pytest.raises(ConfigurationError, match=r"pip install 'whatsapp-webhook\[absent\]'"):
        configured({"WEBHOOK_INBOX": "absent://host/name"})
