"""Commands on a real pseudo-terminal."""

import os
import pty
import re
import subprocess
import sys
import termios
from collections.abc import Mapping
from contextlib import suppress

_STYLE = re.compile(r"\x1b\[[0-9;]*m")


def lines_on_terminal(columns: int, environ: Mapping[str, str], *arguments: str) -> list[str]:
    """Run a command on a terminal of so many columns, and return the lines that it prints, without styles."""
    ours, theirs = pty.openpty()
    termios.tcsetwinsize(theirs, (24, columns))
    clean = {name: value for name, value in environ.items() if name not in ("COLUMNS", "LINES")} | {"TERM": "xterm"}
    command = [sys.executable, "-m", "service", *arguments]
    with os.fdopen(ours, "rb", buffering=0) as screen:
        with subprocess.Popen(command, stdin=theirs, stdout=theirs, stderr=theirs, env=clean) as process:
            os.close(theirs)
            printed = b""
            with suppress(OSError):  # EIO: the end of the output on Linux
                while piece := screen.read(65_536):
                    printed += piece
        assert process.returncode == 0, printed
    return _STYLE.sub("", printed.decode()).splitlines()
