"""Parses a connection's bytes into requests with llhttp, and rejects what llhttp accepts but HTTP/1.1 forbids.

Source: RFC 9110 and 9112; the limits are gunicorn's.
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
MAX_HEAD_BYTES: Final = 32_768  # request line and headers
MAX_TARGET_BYTES: Final = 4_094
MAX_LINE_BYTES: Final = MAX_TARGET_BYTES + 64  # for a method that llhttp does not know
MAX_START_BYTES: Final = MAX_LINE_BYTES + 64  # first bytes of a head, stored until it is complete
MAX_FIELD_BYTES: Final = 8_190
MAX_FIELDS: Final = 100
KNOWN_METHODS: Final = (b"GET", b"HEAD", b"POST", b"PUT", b"DELETE", b"PATCH", b"OPTIONS", b"TRACE")
# The start of the PROXY protocol: of version 1, and of version 2 after its empty lines.
PROXY_PROTOCOL: Final = (b"PROXY ", b"\0\r\nQUIT\n")
PROXY_UNSUPPORTED: Final = "the PROXY protocol is not supported: turn it off at the load balancer"
TUNNEL: Final = b"CONNECT"
VERSIONS: Final = ("1.1", "1.0")
SINGLE: Final = ("HTTP_HOST", "CONTENT_LENGTH", "HTTP_TRANSFER_ENCODING")  # must not be repeated
# The request line with a method that llhttp does not know: the application rejects it, and the rest is not read.
_UNKNOWN_METHOD: Final = re.compile(rb"([A-Z][A-Z0-9_-]{1,19}) (/[!-~]*) HTTP/1\.[01]")
_LINE_SO_FAR: Final = re.compile(rb"[A-Z][ -~]*\r?")
# The form for proxies, which a server must accept as well: RFC 9112, section 3.2.2. A user in it is rejected.
_ABSOLUTE: Final = re.compile(
    rb"(?i:https?)://(\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9._~!$&'()*+,;=%-]+)(:[0-9]*)?(/[!-~]*|\?[!-~]*|)"
)
_CODING: Final = re.compile(r"[A-Za-z]+([ \t]*,[ \t]*[A-Za-z]+)*")


class Parser:
    """Parses the bytes of one connection.

    `requests` are the requests with a complete head; `refused` is set if the connection sent something malformed.

    llhttp does not report where in its bytes a request starts. So it is fed up to each empty line, where a head and a
    chunked body end; the end of a body of known length follows from its length. After a complete request, the rest of
    the bytes waits for `go_on`: a packet can contain hundreds of requests, and other connections must have their turn.
    """

    def __init__(
        self, shared: dict[str, Any], pull: Callable[[Request], None], *, max_field_bytes: int = MAX_FIELD_BYTES
    ) -> None:
        """*shared* is in the environ of every request; *pull* waits for more of a request's body.

        *max_field_bytes* is the maximum size of a header field, name and value.
        """
        self._max_field_bytes = max_field_bytes
        self.requests: deque[Request] = deque()
        self.refused: Refusal | None = None
        self._shared = shared
        self._pull = pull
        self._llhttp = HttpRequestParser(self)
        self._request: Request | None = None  # the request whose body is arriving
        self._rest = b""  # received bytes; those before `_at` have been fed
        self._at = 0
        self._tail = b""  # the last bytes received, in which an empty line may have started
        self._straddle_end = 0  # where an empty line that started in `_tail` ends in `_rest`; 0 if there is none
        self._slice = b""  # the bytes that llhttp is being fed
        self._slice_body_bytes = 0  # bytes of the slice that belong to the current body
        self._start = b""  # first bytes of the current head
        self._head_bytes = 0
        self._body_bytes = 0
        self._framing_bytes = 0  # since the last byte of a body: chunk sizes, extensions, trailers
        self._has_unknown_method = False
        self._resumed_head = b""  # the framing of a request whose upgrade is ignored, for another parser
        self._is_resuming = False
        self._begin()

    @property
    def is_between(self) -> bool:
        """Return whether no byte of a next request has arrived, as far as `go_on` has parsed."""
        return self._request is None and not self._is_started and not self._rest

    @property
    def held(self) -> int:
        """Return about how many bytes of memory the current request uses; its head is also in the environ."""
        return 2 * self._head_bytes + self._body_bytes + len(self._rest) - self._at

    def forget(self) -> None:
        """Stop counting the bytes of a request that was answered."""
        self._head_bytes = self._body_bytes = 0

    def close(self) -> None:
        """Break the reference cycles with the parser, so that its memory is freed without the garbage collector."""
        del self._llhttp, self._pull

    def feed(self, data: bytes) -> None:
        """Parse *data*; a malformed request sets `refused`, after the requests before it."""
        before, tail = len(self._tail), self._tail + data
        if not self._rest:
            straddles = tail[: before + len(EMPTY_LINE) - 1].find(EMPTY_LINE)
            self._straddle_end = straddles + len(EMPTY_LINE) - before if straddles >= 0 else 0
        self._tail = tail[1 - len(EMPTY_LINE) :]
        self._rest = self._rest[self._at :] + data
        self._at = 0
        self.go_on()

    def go_on(self) -> None:
        """Parse the remaining bytes, up to the end of the next request."""
        rest = self._rest
        while self._at < len(rest) and not self.refused and not (self.requests and self._request is None):
            start, end = self._at, self._straddle_end
            if not end:
                found = rest.find(EMPTY_LINE, start)
                end = found + len(EMPTY_LINE) if found >= 0 else len(rest)
            self._straddle_end = 0
            self._at = end
            self._feed(rest[start:end])
        if self._at == len(rest):  # an idle connection must hold no memory
            self._rest, self._at, self._slice = b"", 0, b""

    def _feed(self, piece: bytes) -> None:
        self._slice = piece
        self._slice_body_bytes = 0
        if self._request is not None:
            self._framing_bytes += len(piece)
        elif self._is_started:
            self._add_to_head(piece)
        if self._has_unknown_method:
            self._parse_unknown_method()
            return
        try:
            self._llhttp.feed_data(piece)
        except (HttpParserInvalidMethodError, HttpParserInvalidURLError):
            self._has_unknown_method = True
            self._parse_unknown_method()
        except HttpParserCallbackError as ex:
            self.refused = ex.__context__.refusal if isinstance(ex.__context__, RequestRefused) else Refusal(BAD)
        except HttpParserUpgrade:
            self._resume()
        except HttpParserError:
            self.refused = Refusal(BAD)
        self._body_bytes += self._slice_body_bytes  # not per chunk: a piece can contain thousands
        if self._request is not None and self._framing_bytes > MAX_HEAD_BYTES:
            self.refused = Refusal(BAD)

    def _add_to_head(self, piece: bytes) -> None:
        if len(self._start) < MAX_START_BYTES:
            self._start = (self._start + piece).lstrip(b"\r\n")[:MAX_START_BYTES]
        self._head_bytes += len(piece)
        if self._head_bytes > MAX_HEAD_BYTES:  # llhttp reports a field only when it is complete
            self.refused = Refusal(HEAD_TOO_LARGE)

    def _resume(self) -> None:
        """Continue after a head that asks for an upgrade, which is ignored (RFC 9110, section 7.8).

        llhttp treats everything after such a head as the next protocol, even a body with framing. So another llhttp
        parser is created, and fed a head with only the framing of the original one.
        """
        if not self._resumed_head:
            self.refused = Refusal(BAD)
            return
        head, self._resumed_head = self._resumed_head, b""
        self._llhttp = HttpRequestParser(self)
        self._is_resuming = True
        self._llhttp.feed_data(head)

    # Callbacks of llhttp.

    def on_message_begin(self) -> None:
        """Start a request."""
        if self._is_resuming:
            return
        head = self._slice[self._slice_body_bytes :]
        self._begin()
        self._is_started = True
        self._add_to_head(head)

    def on_url(self, piece: bytes) -> None:
        """Append a piece of the target."""
        if self._is_resuming:
            return
        self._target += piece
        if len(self._target) > MAX_TARGET_BYTES:
            raise RequestRefused(TARGET_TOO_LONG)

    def on_header(self, name: bytes, value: bytes) -> None:
        """Add a header field; ignore one of a trailer."""
        if self._is_resuming:
            return
        size = len(name) + len(value) + 4
        self._fields += 1
        self._fields_bytes += size
        if size > self._max_field_bytes or self._fields > MAX_FIELDS or self._fields_bytes > MAX_HEAD_BYTES:
            raise RequestRefused(HEAD_TOO_LARGE)
        if self._request is not None:
            return
        key = _key(name)
        if key is None:  # with an underscore it could be mistaken for another field
            return
        environ, text = self._environ, value.decode("latin-1").strip(" \t")
        if key in environ:
            if key in SINGLE:
                raise RequestRefused(BAD)
            text = f"{environ[key]},{text}"
        environ[key] = text

    def on_headers_complete(self) -> None:
        """Create the request, so that its body can be read as it arrives."""
        if self._is_resuming:
            self._is_resuming = False
            return
        environ, llhttp = self._environ, self._llhttp
        method, version = llhttp.get_method(), llhttp.get_http_version()
        line_environ = _line_environ(method, self._target, version)
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
        environ |= line_environ
        self._add(environ, expects=bool(expectation), last=is_last)

    def on_body(self, piece: bytes) -> None:
        """Append a piece of the body."""
        assert self._request  # noqa: S101  its head is complete
        self._slice_body_bytes += len(piece)
        self._framing_bytes = 0
        self._request.add(piece)

    def on_message_complete(self) -> None:
        """Complete the request; another one may follow."""
        if self._resumed_head:  # from the parser that is replaced: the body is still to arrive
            return
        assert self._request  # noqa: S101  as above
        self._request.is_complete = True
        self._request = None
        self._is_started = False
        self._start = b""

    def _begin(self) -> None:
        self._is_started = False
        self._start = b""
        self._head_bytes = self._body_bytes = self._slice_body_bytes = 0
        self._target = b""
        self._fields_bytes = 0
        self._fields = 0
        self._environ = self._shared.copy()

    def _add(self, environ: dict[str, Any], *, expects: bool, last: bool) -> None:
        self._framing_bytes = 0
        request = self._request = Request(environ, self._pull, expects=expects, last=last)
        environ["wsgi.input"] = request
        self.requests.append(request)

    def _parse_unknown_method(self) -> None:
        """Parse the request line of a method that llhttp does not know; nothing after the line is read."""
        line, end, _ = self._start.partition(b"\r\n")
        if line.startswith(PROXY_PROTOCOL) or self._slice.startswith(PROXY_PROTOCOL):
            self.refused = Refusal(BAD, PROXY_UNSUPPORTED)
        elif not _LINE_SO_FAR.fullmatch(line[:MAX_LINE_BYTES]):
            self.refused = Refusal(BAD)
        elif len(line) > MAX_LINE_BYTES:
            self.refused = Refusal(TARGET_TOO_LONG)
        elif end:
            match = _UNKNOWN_METHOD.fullmatch(line)
            self.refused = Refusal(TARGET_TOO_LONG if match and len(match[2]) > MAX_TARGET_BYTES else BAD)
            if match and match[1] not in KNOWN_METHODS and len(match[2]) <= MAX_TARGET_BYTES:
                self._environ |= _environ_of(match[1], match[2], "1.1")
                self._add(self._environ, expects=False, last=True)
                self.on_message_complete()


def _line_environ(method: bytes, target: bytes, version: str) -> dict[str, str]:
    """Return the environ of a request line; raise RequestRefused if the line is not accepted."""
    if version not in VERSIONS or b"#" in target:
        raise RequestRefused(BAD)
    if target.startswith(b"/"):
        return _environ_of(method, target, version)
    match = _ABSOLUTE.fullmatch(target)
    if not match or method == TUNNEL:
        raise RequestRefused(BAD)
    origin = match[3] if match[3].startswith(b"/") else b"/" + match[3]
    authority = match[1] + (match[2] or b"")
    return _environ_of(method, origin, version) | {"HTTP_HOST": authority.decode("ascii")}


def _framing(length: str | None, coding: str | None, *, is_last: bool) -> bytes:
    """Return a head with only the framing of another one."""
    framing = "Transfer-Encoding: chunked\r\n" if coding else f"Content-Length: {length}\r\n" if length else ""
    close = "Connection: close\r\n" if is_last else ""
    return f"POST / HTTP/1.1\r\n{framing}{close}\r\n".encode("ascii")


def _environ_of(method: bytes, target: bytes, version: str) -> dict[str, str]:
    path, _, query = target.partition(b"?")
    environ = _environ_without_query(method, path, version)
    return {**environ, "QUERY_STRING": query.decode("ascii")} if query else environ


@lru_cache(maxsize=64)  # mostly the same for the next request; a query is not, and may contain a token
def _environ_without_query(method: bytes, path: bytes, version: str) -> dict[str, str]:
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
    """Return the key of a header field in the environ; None for one that is ignored."""
    if b"_" in name:
        return None
    key = name.decode("ascii").upper().replace("-", "_")
    return key if key in ("CONTENT_TYPE", "CONTENT_LENGTH") else f"HTTP_{key}"
