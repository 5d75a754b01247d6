"""Words: text from Meta as ids and headers may contain it."""

import re
from typing import Final

MAX_WORD_CHARACTERS: Final = 256
_FORBIDDEN_IN_WORDS: Final = re.compile(r"[^!-~]")


def word(value: str) -> str:
    """Return *value* as ids and headers may contain it: printable ASCII without spaces, at most 256 characters."""
    if value.isascii() and value.isprintable() and " " not in value and len(value) <= MAX_WORD_CHARACTERS:
        return value
    return _FORBIDDEN_IN_WORDS.sub("_", value[:MAX_WORD_CHARACTERS])
