"""The parser: its result does not depend on the pieces that the bytes arrive in."""

import itertools

from hypothesis import given, settings
from hypothesis import strategies as st

from service.receiver.worker.http_parser import Parser
from tests.receiver.worker.cases import read
from tests.receiver.worker.outcome import outcome


def test_every_boundary() -> None:
    """Each case of the corpus has the same result if it is split at any byte, and one byte at a time."""
    tried = 0
    for case in read():
        if len(case.raw) > 1000:
            continue
        whole = outcome([case.raw])
        assert outcome([bytes([byte]) for byte in case.raw]) == whole, case.name
        for at in range(1, len(case.raw)):
            assert outcome([case.raw[:at], case.raw[at:]]) == whole, (case.name, at)
            tried += 1
    assert tried > 20_000


def test_every_pair_of_boundaries() -> None:
    """A request after a body, in three pieces: an empty line may be split over more than two."""
    raw = b"POST /x HTTP/1.1\r\nHost:a\r\nContent-Length: 3\r\n\r\nabcGET /y HTTP/1.1\r\nHost:a\r\n\r\n"
    whole = outcome([raw])
    assert len(whole[0]) == 2
    for first, second in itertools.combinations(range(1, len(raw)), 2):
        assert outcome([raw[:first], raw[first:second], raw[second:]]) == whole, (first, second)


def test_the_memory_of_a_request() -> None:
    """It is twice the head plus the body, without the previous request, even if one piece contains both."""
    parser = Parser({}, lambda _: None)
    head = b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\n"
    parser.feed(head + b"abc")
    assert parser.held == 2 * len(head) + 3
    parser.feed(b"de" + head[:7])
    parser.requests.popleft()
    parser.go_on()
    assert parser.held == 2 * 7
    parser.feed(head[7:] + b"abcd")
    assert parser.held == 2 * len(head) + 4


def test_one_byte_chunks_are_counted() -> None:
    """Also if one piece contains many."""
    parser = Parser({}, lambda _: None)
    head = b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n"
    parser.feed(head)
    for _ in range(2):
        parser.feed(b"1\r\nx\r\n" * 1000)
    assert parser.held == 2 * len(head) + 2000


TOKEN = st.sampled_from(["GET", "POST", "HEAD", "get", "FOO", "G T", "", "CONNECT"])
TARGET = st.sampled_from(["/", "/x", "/x?y=%20", "x", "*", "http://a/", "/\x01", "/é", "/" + "y" * 5000, "//", "/#"])
VERSION = st.sampled_from(["HTTP/1.1", "HTTP/1.0", "HTTP/1.2", "HTTP/2.0", "", "RTSP/1.0", "http/1.1"])
NAME = st.sampled_from(
    ["Host", "Content-Length", "Transfer-Encoding", "X", "X_Y", "x y", "", " X", "Expect", "Connection", "Upgrade"]
)
VALUE = st.sampled_from(
    [
        "a",
        "3",
        "0",
        "chunked",
        "gzip, chunked",
        "identity",
        "100-continue",
        "close",
        "upgrade",
        "",
        "\x00",
        "\t",
        "5, 5",
    ]
) | st.text(max_size=8)
COLON = st.sampled_from([": ", ":", " : ", "", ":\t"])
END = st.sampled_from(["\r\n"] * 8 + ["\n", "\r", "\r\n "])
BODY = st.sampled_from(["", "abc", "3\r\nabc\r\n0\r\n\r\n", "0\r\nX: y\r\n\r\n", "3;a=b\r\nabc\r\n0\r\n\r\n", "g\r\n"])
FIELD = st.builds(lambda name, colon, value, end: name + colon + value + end, NAME, COLON, VALUE, END)
REQUEST = st.builds(
    lambda method, target, version, end, host, fields, body: (
        f"{method} {target} {version}{end}{host}{''.join(fields)}\r\n{body}".encode("latin-1", "replace")
    ),
    TOKEN,
    TARGET,
    VERSION,
    END,
    st.sampled_from(["Host: a\r\n"] * 4 + [""]),
    st.lists(FIELD, max_size=4),
    BODY,
)


@settings(max_examples=3000, deadline=None)
@given(st.lists(REQUEST, min_size=1, max_size=3).map(b"".join) | st.binary(max_size=200), st.data())
def test_any_bytes(raw: bytes, data: st.DataObject) -> None:
    """No exception is raised, every request has a complete head, and the result does not depend on the pieces."""
    whole = outcome([raw])
    for environ, _body, _complete, _last in whole[0]:
        assert environ["PATH_INFO"].startswith(("/", "%")) or environ["PATH_INFO"]
        assert environ["SERVER_PROTOCOL"] in ("HTTP/1.1", "HTTP/1.0")
    if len(raw) > 1:
        cuts = sorted(data.draw(st.sets(st.integers(1, len(raw) - 1), max_size=5)))
        pieces = [raw[start:end] for start, end in zip([0, *cuts], [*cuts, len(raw)], strict=True)]
        assert outcome(pieces) == whole
