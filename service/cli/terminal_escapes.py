"""Escaping text from outside, so that it cannot control a terminal or change the direction of its text.

Names, texts and reasons are written by strangers, by Meta, by applications. Their control and format characters (C0,
DEL, C1, bidirectional marks, invisible characters, surrogates, line separators) are printed as JSON escapes, so that
JSON stays the same JSON.
"""

import re
import sys
import unicodedata
from typing import Any, Final, TextIO, cast

_SAFE: Final = "\n\t"
_CONTROL_CATEGORIES: Final = ("Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp")
_COLOUR: Final = r"(?:[0-79]|2[1-7]|3[0-79]|38;5;[0-9]{1,3}|9[0-7])"  # not 8, which hides text
_STYLE: Final = re.compile(rf"(\x1b\[{_COLOUR}(?:;{_COLOUR})*m)")


def escaped(text: str) -> str:
    """Return *text* with a JSON escape for every character that could control a terminal."""
    if text.isprintable():
        return text
    return "".join(map(_escaped_character, text))


def guard() -> None:
    """Escape everything that this process prints from now on, except for colours and bold."""
    sys.stdout = cast("TextIO", _Guarded(sys.stdout))
    sys.stderr = cast("TextIO", _Guarded(sys.stderr))


class _Guarded:
    """A text stream that escapes what is written to it."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def write(self, text: str) -> int:
        parts = _STYLE.split(text)  # every second part is a style
        self._stream.write("".join(part if at % 2 else escaped(part) for at, part in enumerate(parts)))
        return len(text)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


def _escaped_character(character: str) -> str:
    if character in _SAFE or unicodedata.category(character) not in _CONTROL_CATEGORIES:
        return character
    encoded = character.encode("utf-16-be", "surrogatepass")
    return "".join(f"\\u{encoded[at : at + 2].hex()}" for at in range(0, len(encoded), 2))
