"""Text that others wrote cannot control the terminal on which it is printed."""

import json
import os
import pty
import subprocess
import sys
from pathlib import Path

import msgspec
import pytest

from service.cli.terminal_escapes import escaped
from service.storage.protocols import Terms
from service.storage.sqlite import SqliteInbox
from tests.support.events import HOUR, event

CONTROL_CHARACTERS = {
    "escape": "\x1b[2J",
    "a single byte that begins a sequence": "\x9b2J",
    "delete": "\x7f",
    "backspace": "\b",
    "carriage return": "\r",
    "right to left": "\u202e",
    "an isolate": "\u2066",
    "a mark": "\u200f",
    "invisible": "\u200b",
    "a tag beyond the first plane": "\U000e0041",
    "half a character": "\ud83d",
    "a line separator": "\u2028",
    "private": "\ue000",
    "unassigned": "\u0378",
}


@pytest.mark.parametrize("text", CONTROL_CHARACTERS.values(), ids=CONTROL_CHARACTERS)
def test_control_characters_are_escaped(text: str) -> None:
    """Every character of a control category is written as a JSON escape."""
    shown = escaped(f"a{text}b")
    assert shown.isascii()
    assert shown.isprintable()
    assert json.loads(f'"{shown}"') == f"a{text}b"


@pytest.mark.parametrize("text", ["plain", "¿Y en azul? 🙂", "中文　text", "ok\n\tmore", "a\u0301", "עברית"])
def test_ordinary_text_is_unchanged(text: str) -> None:
    """Any script, with line breaks and tabs."""
    assert escaped(text) == text


def on_terminal(*arguments: str) -> bytes:
    """Run a command whose standard output is a terminal, and return what it prints."""
    ours, theirs = pty.openpty()
    process = subprocess.Popen([sys.executable, "-m", "service", *arguments], stdout=theirs, stderr=theirs)
    os.close(theirs)
    printed = b""
    try:
        while piece := os.read(ours, 65_536):
            printed += piece
    except OSError:  # EIO: the end of the output on Linux
        pass
    os.close(ours)
    assert process.wait(20) == 0, printed
    return printed


@pytest.mark.parametrize("command", [["list"], ["list", "--json"], ["show", "1"]])
def test_an_event_cannot_control_a_terminal(tmp_path: Path, command: list[str]) -> None:
    """Neither in a table nor as JSON. On a pipe its JSON has the bytes that Meta sent."""
    evil = "\x1b]0;x\x07\x9b\u202e\x7f"
    inbox = SqliteInbox(tmp_path / "inbox.db", Terms(HOUR, HOUR))
    data = json.dumps({"text": evil}, ensure_ascii=False, separators=(",", ":")).encode()
    inbox.put([msgspec.structs.replace(event(1), subject=f"1650{evil}", data=data)])
    inbox.close()
    whole = ["events", *command, "--inbox", f"sqlite://{tmp_path}/inbox.db"]
    printed = on_terminal(*whole).decode()
    assert not {"\x9b", "\u202e", "\x7f", "\x07"} & set(printed)
    assert "\x1b]" not in printed
    if "--json" in command:
        piped = subprocess.run([sys.executable, "-m", "service", *whole], capture_output=True, check=True).stdout
        assert data in piped
        assert json.loads(printed) == json.loads(piped)
