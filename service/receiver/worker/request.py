"""A request whose body is still arriving, and the rejection of a malformed one."""

from collections import deque
from collections.abc import Callable, Iterator
from typing import Any, Final, NamedTuple

BAD: Final = "400 Bad Request"
TARGET_TOO_LONG: Final = "414 URI Too Long"
EXPECTATION_FAILED: Final = "417 Expectation Failed"
CODING_UNKNOWN: Final = "501 Not Implemented"
HEAD_TOO_LARGE: Final = "431 Request Header Fields Too Large"


class Refusal(NamedTuple):
    """Why a request is not valid HTTP; *status* is the response, after which the connection closes.

    *reason* is for the log, if there is more to say than the status. This is the storable part of a RequestRefused: an
    exception keeps the frames of its raise alive, and so the connection that stores it.
    """

    status: str
    reason: str = ""


class RequestRefused(Exception):
    """The request is rejected; see `Refusal`."""

    def __init__(self, status: str, reason: str = "") -> None:
        super().__init__(status)
        self.refusal = Refusal(status, reason)


class Request:
    """One request: its environ, and the part of its body that has arrived. It is also its `wsgi.input`."""

    __slots__ = ("_pieces", "_pull", "environ", "expects", "is_complete", "is_last")

    def __init__(
        self, environ: dict[str, Any], pull: Callable[["Request"], None], *, expects: bool = False, last: bool
    ) -> None:
        """*pull* waits for more of the body; *expects* is true if the client waits for 100 Continue first."""
        self.environ = environ
        self.expects = expects
        self.is_complete = False
        self.is_last = last
        self._pieces: deque[bytes] = deque()
        self._pull = pull

    def add(self, piece: bytes) -> None:
        """Append a piece of the body."""
        self._pieces.append(piece)

    def read(self, size: int = -1, /) -> bytes:
        """Return up to *size* bytes, or all if it is negative; wait only if no byte has arrived; none at the end."""
        if size < 0:
            return b"".join(iter(lambda: self.read(65536), b""))
        if not size:
            return b""
        while not self._pieces:
            if self.is_complete:
                return b""
            self._pull(self)
        piece = self._pieces.popleft()
        if self._pieces:  # join many small pieces, whose overhead exceeds their bytes
            piece += b"".join(self._pieces)
            self._pieces.clear()
        if len(piece) > size:
            self._pieces.appendleft(piece[size:])
            return piece[:size]
        return piece

    def readline(self, size: int = -1, /) -> bytes:
        """Return a line with its line end, or up to *size* bytes of it."""
        line = b""
        while size < 0 or len(line) < size:
            piece = self.read(65536 if size < 0 else size - len(line))
            if not piece:
                break
            end = piece.find(b"\n") + 1
            if end:
                if end < len(piece):
                    self._pieces.appendleft(piece[end:])
                return line + piece[:end]
            line += piece
        return line

    def readlines(self, _hint: int = -1, /) -> list[bytes]:
        """Return all lines."""
        return list(self)

    def __iter__(self) -> Iterator[bytes]:
        return iter(self.readline, b"")
