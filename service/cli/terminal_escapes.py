"""What somebody else wrote must not steer a terminal, nor turn the direction of its text.

Names, texts and reasons come from strangers, from Meta, from applications. Control and format characters among them
(C0, DEL, C1, bidirectional marks, invisible ones, half characters, line separators) are written as JSON writes them,
so that what is JSON stays the same JSON.
"""

import re
import sys
import unicodedata
from typing import Any, Final, TextIO, cast

_SAFE: Final = "\n\t"
_STEERING: Final = ("Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp")
_COLOUR: Final = r"(?:[0-79]|2[1-7]|3[0-79]|38;5;[0-9]{1,3}|9[0-7])"  # 8 would hide text
_STYLE: Final = re.compile(rf"(\x1b\[{_COLOUR}(?:;{_COLOUR})*m)")


def escaped(text: str) -> str:
    """Return *text* with an escape sequence for every character that could steer a terminal."""
    if text.isprintable():
        return text
    return "".join(map(_written, text))


def guard() -> None:
    """Escape whatever this process prints from now on; styles of our own pass."""
    sys.stdout = cast("TextIO", _Guarded(sys.stdout))
    sys.stderr = cast("TextIO", _Guarded(sys.stderr))


class _Guarded:
    """A text stream whose text is escaped."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def write(self, text: str) -> int:
        parts = _STYLE.split(text)  # every second part is a style
        self._stream.write("".join(part if at % 2 else escaped(part) for at, part in enumerate(parts)))
        return len(text)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


def _written(character: str) -> str:
    if character in _SAFE or unicodedata.category(character) not in _STEERING:
        return character
    encoded = character.encode("utf-16-be", "surrogatepass")
    return "".join(f"\\u{encoded[at : at + 2].hex()}" for at in range(0, len(encoded), 2))
