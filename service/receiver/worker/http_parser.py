"""From a connection's bytes to requests: llhttp reads, and what it lets pass that HTTP/1.1 does not is refused here.

Source: RFC 9110 and 9112; the limits are gunicorn's own.
"""

import re
from collections import deque
from collections.abc import Callable
from functools import lru_cache
from typing import Any, Final
from urllib.parse import unquote_to_bytes

from httptools import (
    HttpParserCallbackError,
    HttpParserError,
    HttpParserInvalidMethodError,
    HttpParserInvalidURLError,
    HttpParserUpgrade,
    HttpRequestParser,
)

from service.receiver.worker.request import (
    BAD,
    CODING_UNKNOWN,
    EXPECTATION_FAILED,
    HEAD_TOO_LARGE,
    TARGET_TOO_LONG,
    Refusal,
    Request,
    RequestRefused,
)

EMPTY_LINE: Final = b"\r\n\r\n"
HEAD_BYTES: Final = 32_768  # of a request's line and headers
TARGET_BYTES: Final = 4_094
LINE_BYTES: Final = TARGET_BYTES + 64  # of a request whose method llhttp does not know
START_BYTES: Final = LINE_BYTES + 64  # of a head that are kept until it is complete
FIELD_BYTES: Final = 8_190
MAX_FIELDS: Final = 100
KNOWN_METHODS: Final = (b"GET", b"HEAD", b"POST", b"PUT", b"DELETE", b"PATCH", b"OPTIONS", b"TRACE")
# What a load balancer says before the request, where it is told to: version 1, and 2 behind its empty lines.
PROXIED: Final = (b"PROXY ", b"\0\r\nQUIT\n")
NOT_SPOKEN: Final = "the PROXY protocol is not spoken here: turn it off at the load balancer"
TUNNEL: Final = b"CONNECT"
VERSIONS: Final = ("1.1", "1.0")
SINGLE: Final = ("HTTP_HOST", "CONTENT_LENGTH", "HTTP_TRANSFER_ENCODING")  # stand once
# A method that llhttp does not know is the application's to refuse; the rest of its request is not read.
_STRANGE: Final = re.compile(rb"([A-Z][A-Z0-9_-]{1,19}) (/[!-~]*) HTTP/1\.[01]")
_UNFINISHED: Final = re.compile(rb"[A-Z][ -~]*\r?")
# The form for proxies, which a server must accept as well: RFC 9112, section 3.2.2. A user in it is refused.
_ABSOLUTE: Final = re.compile(
    rb"(?i:https?)://(\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9._~!$&'()*+,;=%-]+)(:[0-9]*)?(/[!-~]*|\?[!-~]*|)"
)
_CODING: Final = re.compile(r"[A-Za-z]+([ \t]*,[ \t]*[A-Za-z]+)*")


class Parser:
    """Takes the bytes of one connection; `requests` are those whose head is complete, `refused` is why it ended.

    llhttp does not say where in its bytes a request begins. So it is fed up to each empty line: that is where a head
    and a chunked body end. Where a body of a known length ends, its bytes say. Behind a whole request the rest waits
    for `go_on`: a packet holds hundreds, and others are to have their turn.
    """

    def __init__(
        self, shared: dict[str, Any], pull: Callable[[Request], None], *, max_field_bytes: int = FIELD_BYTES
    ) -> None:
        """*shared* is what all environs of the connection have in common, *pull* what a body waits by.

        *max_field_bytes* is the largest header field, its name and value.
        """
        self._max_field_bytes = max_field_bytes
        self.requests: deque[Request] = deque()
        self.refused: Refusal | None = None
        self._shared = shared
        self._pull = pull
        self._llhttp = HttpRequestParser(self)
        self._request: Request | None = None  # the one whose body comes
        self._rest = b""  # what was received, fed up to `_at`
        self._at = 0
        self._tail = b""  # the last bytes received, in which an empty line may have begun
        self._cut = 0  # where it ends then
        self._slice = b""
        self._body = 0  # bytes of the slice that are the present body's
        self._start = b""  # of the present head
        self._raw = 0  # bytes of that head
        self._of_body = 0  # bytes of the body behind it, so far
        self._between = 0  # bytes since the last of a body: sizes, extensions, trailers
        self._is_strange = False
        self._resumed_head = b""  # of a request whose upgrade is ignored: its framing, for another parser
        self._is_resuming = False
        self._begin()

    @property
    def is_between(self) -> bool:
        """Say whether nothing of a next request came yet, as far as `go_on` went."""
        return self._request is None and not self._is_begun and not self._rest

    @property
    def held(self) -> int:
        """Return about how many bytes of memory the present request takes: its head is in the environ as well."""
        return 2 * self._raw + self._of_body + len(self._rest) - self._at

    def forget(self) -> None:
        """Count nothing of a request that was answered."""
        self._raw = self._of_body = 0

    def close(self) -> None:
        """Free what refers back to the parser, so that its memory does not wait for the garbage collector."""
        del self._llhttp, self._pull

    def feed(self, data: bytes) -> None:
        """Take bytes; what is wrong with them is in `refused`, behind the requests before it."""
        before, tail = len(self._tail), self._tail + data
        if not self._rest:
            straddles = tail[: before + len(EMPTY_LINE) - 1].find(EMPTY_LINE)
            self._cut = straddles + len(EMPTY_LINE) - before if straddles >= 0 else 0
        self._tail = tail[1 - len(EMPTY_LINE) :]
        self._rest = self._rest[self._at :] + data
        self._at = 0
        self.go_on()

    def go_on(self) -> None:
        """Read on, to the end of the next request at most."""
        rest = self._rest
        while self._at < len(rest) and not self.refused and not (self.requests and self._request is None):
            start, end = self._at, self._cut
            if not end:
                found = rest.find(EMPTY_LINE, start)
                end = found + len(EMPTY_LINE) if found >= 0 else len(rest)
            self._cut = 0
            self._at = end
            self._feed(rest[start:end])
        if self._at == len(rest):  # an idle connection holds nothing
            self._rest, self._at, self._slice = b"", 0, b""

    def _feed(self, piece: bytes) -> None:
        self._slice = piece
        self._body = 0
        if self._request is not None:
            self._between += len(piece)
        elif self._is_begun:
            self._add_to_head(piece)
        if self._is_strange:
            self._take_strange()
            return
        try:
            self._llhttp.feed_data(piece)
        except (HttpParserInvalidMethodError, HttpParserInvalidURLError):
            self._is_strange = True
            self._take_strange()
        except HttpParserCallbackError as ex:
            self.refused = ex.__context__.refusal if isinstance(ex.__context__, RequestRefused) else Refusal(BAD)
        except HttpParserUpgrade:
            self._resume()
        except HttpParserError:
            self.refused = Refusal(BAD)
        self._of_body += self._body  # once, as a piece holds thousands of chunks
        if self._request is not None and self._between > HEAD_BYTES:
            self.refused = Refusal(BAD)

    def _add_to_head(self, piece: bytes) -> None:
        if len(self._start) < START_BYTES:
            self._start = (self._start + piece).lstrip(b"\r\n")[:START_BYTES]
        self._raw += len(piece)
        if self._raw > HEAD_BYTES:  # a field is not seen before it is whole
            self.refused = Refusal(HEAD_TOO_LARGE)

    def _resume(self) -> None:
        """Go on behind a head that asks for an upgrade: nobody takes it up (RFC 9110, section 7.8).

        llhttp leaves everything behind such a head to the next protocol, also a body with its framing. So another one
        is begun, in the state that the head's framing alone brings it to.
        """
        if not self._resumed_head:
            self.refused = Refusal(BAD)
            return
        head, self._resumed_head = self._resumed_head, b""
        self._llhttp = HttpRequestParser(self)
        self._is_resuming = True
        self._llhttp.feed_data(head)

    # llhttp calls these.

    def on_message_begin(self) -> None:
        """Start with a request."""
        if self._is_resuming:
            return
        head = self._slice[self._body :]
        self._begin()
        self._is_begun = True
        self._add_to_head(head)

    def on_url(self, piece: bytes) -> None:
        """Take a piece of the target."""
        if self._is_resuming:
            return
        self._target += piece
        if len(self._target) > TARGET_BYTES:
            raise RequestRefused(TARGET_TOO_LONG)

    def on_header(self, name: bytes, value: bytes) -> None:
        """Take a field; one of a trailer is dropped."""
        if self._is_resuming:
            return
        size = len(name) + len(value) + 4
        self._fields += 1
        self._size += size
        if size > self._max_field_bytes or self._fields > MAX_FIELDS or self._size > HEAD_BYTES:
            raise RequestRefused(HEAD_TOO_LARGE)
        if self._request is not None:
            return
        key = _key(name)
        if key is None:  # with an underscore it could pass for another
            return
        environ, text = self._environ, value.decode("latin-1").strip(" \t")
        if key in environ:
            if key in SINGLE:
                raise RequestRefused(BAD)
            text = f"{environ[key]},{text}"
        environ[key] = text

    def on_headers_complete(self) -> None:
        """Make the request, so that its body can be read as it comes."""
        if self._is_resuming:
            self._is_resuming = False
            return
        environ, llhttp = self._environ, self._llhttp
        method, version = llhttp.get_method(), llhttp.get_http_version()
        said = _line(method, self._target, version)
        line = b"%b %b HTTP/%b\r\n" % (method, self._target, version.encode())
        if not self._start.startswith(line):
            raise RequestRefused(BAD)
        coding = environ.get("HTTP_TRANSFER_ENCODING")
        if coding is not None:
            _check_coding(coding, version)
        expectation = environ.get("HTTP_EXPECT", "").lower() if version == "1.1" else ""
        if expectation not in ("", "100-continue"):
            raise RequestRefused(EXPECTATION_FAILED)
        if version == "1.1" and "HTTP_HOST" not in environ:
            raise RequestRefused(BAD)
        is_tunnel = method == TUNNEL
        if is_tunnel and (coding or environ.get("CONTENT_LENGTH", "0") != "0"):
            raise RequestRefused(BAD)
        is_last = is_tunnel or not llhttp.should_keep_alive()
        if llhttp.should_upgrade() and not is_tunnel:
            self._resumed_head = _framing(environ.get("CONTENT_LENGTH"), coding, is_last=is_last)
        environ |= said
        self._add(environ, expects=bool(expectation), last=is_last)

    def on_body(self, piece: bytes) -> None:
        """Take a piece of the body."""
        assert self._request  # noqa: S101  its head is complete
        self._body += len(piece)
        self._between = 0
        self._request.add(piece)

    def on_message_complete(self) -> None:
        """End the request; the next begins."""
        if self._resumed_head:  # of the parser that is given up: the body is still to come
            return
        assert self._request  # noqa: S101  as above
        self._request.is_complete = True
        self._request = None
        self._is_begun = False
        self._start = b""

    def _begin(self) -> None:
        self._is_begun = False
        self._start = b""
        self._raw = self._of_body = self._body = 0
        self._target = b""
        self._size = 0
        self._fields = 0
        self._environ = self._shared.copy()

    def _add(self, environ: dict[str, Any], *, expects: bool, last: bool) -> None:
        self._between = 0
        request = self._request = Request(environ, self._pull, expects=expects, last=last)
        environ["wsgi.input"] = request
        self.requests.append(request)

    def _take_strange(self) -> None:
        """Pass on a request of a method that llhttp does not know, by its line alone; nothing behind it is read."""
        line, end, _ = self._start.partition(b"\r\n")
        if line.startswith(PROXIED) or self._slice.startswith(PROXIED):
            self.refused = Refusal(BAD, NOT_SPOKEN)
        elif not _UNFINISHED.fullmatch(line[:LINE_BYTES]):
            self.refused = Refusal(BAD)
        elif len(line) > LINE_BYTES:
            self.refused = Refusal(TARGET_TOO_LONG)
        elif end:
            found = _STRANGE.fullmatch(line)
            self.refused = Refusal(TARGET_TOO_LONG if found and len(found[2]) > TARGET_BYTES else BAD)
            if found and found[1] not in KNOWN_METHODS and len(found[2]) <= TARGET_BYTES:
                self._environ |= _said(found[1], found[2], "1.1")
                self._add(self._environ, expects=False, last=True)
                self.on_message_complete()


def _line(method: bytes, target: bytes, version: str) -> dict[str, str]:
    """Return what a request's line says for the environ; raises RequestRefused if it is none that we accept."""
    if version not in VERSIONS or b"#" in target:
        raise RequestRefused(BAD)
    if target.startswith(b"/"):
        return _said(method, target, version)
    found = _ABSOLUTE.fullmatch(target)
    if not found or method == TUNNEL:
        raise RequestRefused(BAD)
    origin = found[3] if found[3].startswith(b"/") else b"/" + found[3]
    authority = found[1] + (found[2] or b"")
    return _said(method, origin, version) | {"HTTP_HOST": authority.decode("ascii")}


def _framing(length: str | None, coding: str | None, *, is_last: bool) -> bytes:
    """Write a head that has only the framing of another one."""
    framing = "Transfer-Encoding: chunked\r\n" if coding else f"Content-Length: {length}\r\n" if length else ""
    close = "Connection: close\r\n" if is_last else ""
    return f"POST / HTTP/1.1\r\n{framing}{close}\r\n".encode("ascii")


def _said(method: bytes, target: bytes, version: str) -> dict[str, str]:
    path, _, query = target.partition(b"?")
    said = _known(method, path, version)
    return {**said, "QUERY_STRING": query.decode("ascii")} if query else said


@lru_cache(maxsize=64)  # the next request's is the same, mostly; a query is not, and may hold a token
def _known(method: bytes, path: bytes, version: str) -> dict[str, str]:
    return {
        "REQUEST_METHOD": method.decode("ascii"),
        "PATH_INFO": (unquote_to_bytes(path) if b"%" in path else path).decode("latin-1"),
        "QUERY_STRING": "",
        "SERVER_PROTOCOL": f"HTTP/{version}",
    }


def _check_coding(coding: str, version: str) -> None:
    if version == "1.0" or not _CODING.fullmatch(coding):
        raise RequestRefused(BAD)
    *others, last = (word.strip(" \t").lower() for word in coding.split(","))
    if "identity" in (last, *others) or "chunked" in others:
        raise RequestRefused(BAD)
    if last != "chunked":
        raise RequestRefused(CODING_UNKNOWN)


@lru_cache(maxsize=256)
def _key(name: bytes) -> str | None:
    """Give a field's name in the environ; None for one that is dropped."""
    if b"_" in name:
        return None
    key = name.decode("ascii").upper().replace("-", "_")
    return key if key in ("CONTENT_TYPE", "CONTENT_LENGTH") else f"HTTP_{key}"
