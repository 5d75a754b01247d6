"""Credentials: files as the kubelet mounts them and as people write them; the last good values stay accepted."""

import errno
import os
import tracemalloc
from pathlib import Path

import pytest

from service.credentials import (
    Credentials,
    CredentialsDirectory,
    UnusableFile,
    parse_values,
    read_values,
    weak_verify_tokens,
)

SECRET = b"0123456789abcdef0123456789abcdef"


@pytest.mark.parametrize(
    ("content", "values"),
    [
        (b"one", (b"one",)),
        (b"one\n", (b"one",)),
        (b"one\r\ntwo\r\n", (b"one", b"two")),
        (b"\xef\xbb\xbfone\n", (b"one",)),
        (b"\n\n one \n\t\n two\t\n\n", (b"one", b"two")),
        (b"one two\n", (b"one two",)),
        (b"", ()),
        (b" \t\r\n \n", ()),
        (b"\xef\xbb\xbf", ()),
        (b"\xef\xbb\xbf \n", ()),
        ("Prüfwort ✓".encode(), ("Prüfwort ✓".encode(),)),
        (b'"abc"', (b'"abc"',)),
        (b"12345678", (b"12345678",)),
    ],
)
def test_parsing_a_file(content: bytes, values: tuple[bytes, ...]) -> None:
    """CRLF, a byte order mark, blank lines and surrounding spaces are removed; a blank line is not a value."""
    assert parse_values(content) == values


def lay(directory: Path, version: str, **files: bytes) -> None:
    """Write files as the kubelet does: links through `..data`, which is replaced by a rename."""
    target = directory / f"..{version}"
    target.mkdir(parents=True)
    for name, content in files.items():
        (target / name.replace("_", "-")).write_bytes(content)
        link = directory / name.replace("_", "-")
        if not link.is_symlink():
            link.symlink_to(Path("..data") / link.name)
    swap = directory / "..data_tmp"
    swap.symlink_to(target.name)
    swap.rename(directory / "..data")


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "credentials"


def test_a_mounted_secret_and_its_rotation(path: Path) -> None:
    """A new `..data` takes effect at the next look, and nothing changes before."""
    lay(path, "1", verify_token=b"old", app_secret=SECRET + b"\n")
    directory = CredentialsDirectory(path)
    assert directory.look()
    assert directory.current == Credentials((b"old",), (SECRET,))
    assert not directory.look()
    lay(path, "2", verify_token=b"new\nold\n", app_secret=SECRET + b"\n")
    assert directory.look()
    assert directory.current.verify_tokens == (b"new", b"old")
    assert directory.missing is None
    assert not directory.stale
    assert directory.problems == ()


def test_a_change_that_keeps_size_and_time_is_seen(path: Path) -> None:
    """The content is compared, not the file's size and time."""
    lay(path, "1", verify_token=b"aaaa", app_secret=SECRET)
    directory = CredentialsDirectory(path)
    directory.look()
    file = path / "..1" / "verify-token"
    before = file.stat()
    file.write_bytes(b"bbbb")
    os.utime(file, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert directory.look()
    assert directory.current.verify_tokens == (b"bbbb",)


def test_before_the_first_look() -> None:
    """Nothing is accepted, and there are no problems."""
    directory = CredentialsDirectory(Path("never/read"))
    assert (directory.current.verify_tokens, directory.current.app_secrets) == ((), ())
    assert directory.current.log_key is None
    assert directory.problems == ()
    assert directory.stale is False


def test_a_change_creates_a_new_object(path: Path) -> None:
    """The credentials that a request has read never change; new values are a new object."""
    lay(path, "1", verify_token=b"old", app_secret=SECRET)
    directory = CredentialsDirectory(path)
    directory.look()
    old = directory.current
    with pytest.raises(AttributeError):
        old.verify_tokens = (b"another",)  # type: ignore[misc]
    lay(path, "2", verify_token=b"new", app_secret=SECRET)
    assert directory.look()
    assert old.verify_tokens == (b"old",)


def test_missing_files(path: Path) -> None:
    """Nothing is accepted; the problems and the hint are reported."""
    directory = CredentialsDirectory(path, hint="Make the Secret wh-credentials.")
    assert not directory.look()
    assert directory.current == Credentials()
    absent = os.strerror(errno.ENOENT)
    problems = (f"{path}/verify-token can't be read ({absent})", f"{path}/app-secret can't be read ({absent})")
    assert directory.problems == problems
    assert directory.missing == f"{problems[0]}; {problems[1]}. Make the Secret wh-credentials."
    assert not directory.stale


def test_without_a_hint(path: Path) -> None:
    """The hint is optional."""
    lay(path, "1", verify_token=b"token", app_secret=b"")
    directory = CredentialsDirectory(path)
    directory.look()
    assert directory.missing == f"{path}/app-secret contains no value."


def test_a_misspelt_file_name(path: Path) -> None:
    """Files with unknown names are listed, so that a wrong key in a Secret is noticed."""
    lay(path, "1", app_secret=SECRET)
    (path / "verify_token").write_text("value")
    directory = CredentialsDirectory(path, hint="Do this.")
    directory.look()
    assert directory.missing.endswith("). The directory has other files: verify_token. Do this.")


def test_a_repeated_value_counts_once() -> None:
    """The first occurrence counts."""
    assert parse_values(b"old\nold\n other \nold") == (b"old", b"other")


@pytest.mark.parametrize(
    ("present", "read", "missing"),
    [
        ("verify_token", Credentials(verify_tokens=(SECRET,)), "app-secret"),
        ("app_secret", Credentials(app_secrets=(SECRET,)), "verify-token"),
    ],
)
def test_one_of_two_is_not_enough(path: Path, present: str, read: Credentials, missing: str) -> None:
    """Without both a verify token and an app secret, the other is reported as missing."""
    lay(path, "1", **{present: SECRET})
    directory = CredentialsDirectory(path)
    assert directory.look()
    assert directory.current == read
    assert directory.missing == f"{path}/{missing} can't be read ({os.strerror(errno.ENOENT)})."
    assert not directory.stale
    lay(path, "2", verify_token=SECRET, app_secret=SECRET)
    assert directory.look()
    assert directory.missing is None


@pytest.mark.parametrize("name", ["verify-token", "app-secret"])
@pytest.mark.parametrize(
    "broken", [b"", b" \n", b"\xef\xbb\xbf\r\n", b"1\n2\n3\n4\n5\n", b"x" * 65537, None, "directory"]
)
def test_the_last_good_values_stay(path: Path, name: str, broken: bytes | str | None) -> None:
    """A file that vanishes or becomes empty, invalid or unreadable changes only the problems."""
    path.mkdir()
    (path / "verify-token").write_bytes(b"token")
    (path / "app-secret").write_bytes(SECRET)
    directory = CredentialsDirectory(path)
    directory.look()
    good = directory.current
    file = path / name
    file.unlink()
    if isinstance(broken, bytes):
        file.write_bytes(broken)
    elif broken == "directory":
        file.mkdir()
    assert not directory.look()
    assert directory.current == good
    assert directory.stale
    assert directory.missing is None
    assert len(directory.problems) == 1
    assert name in directory.problems[0]
    if broken == "directory":
        file.rmdir()
    file.write_bytes(b"a valid value once more")
    assert directory.look()
    assert not directory.stale


def test_at_most_four_values(path: Path) -> None:
    """Four values are accepted, in order; a file with five is invalid."""
    lay(path, "1", verify_token=b"1\n2\n3\n4\n", app_secret=SECRET)
    directory = CredentialsDirectory(path)
    directory.look()
    assert directory.current.verify_tokens == (b"1", b"2", b"3", b"4")
    lay(path, "2", verify_token=b"1\n2\n3\n4\n5\n", app_secret=SECRET)
    directory.look()
    assert directory.current.verify_tokens == (b"1", b"2", b"3", b"4")
    assert directory.problems == (f"{path}/verify-token contains more than 4 values",)


def test_the_maximum_size_of_a_file(path: Path) -> None:
    """A file of 65,536 bytes is read."""
    path.mkdir()
    (path / "verify-token").write_bytes(b"t" * 65536)
    (path / "app-secret").write_bytes(SECRET)
    directory = CredentialsDirectory(path)
    assert directory.look()
    assert len(directory.current.verify_tokens[0]) == 65536


@pytest.mark.timeout(10)
@pytest.mark.parametrize("name", ["verify-token", "app-secret", "log-key"])
def test_a_pipe_does_not_block(path: Path, name: str) -> None:
    """It is reported as not a regular file, and the last good values stay."""
    path.mkdir()
    for file in ("verify-token", "app-secret", "log-key"):
        (path / file).write_bytes(SECRET)
    directory = CredentialsDirectory(path)
    directory.look()
    good = directory.current
    (path / name).unlink()
    os.mkfifo(path / name)
    before = len([*Path("/proc/self/fd").iterdir()])
    assert not directory.look()
    assert len([*Path("/proc/self/fd").iterdir()]) == before
    assert directory.current == good
    assert directory.problems == (f"{path / name} can't be read (not a regular file)",)


def test_a_huge_file_is_not_read_into_memory(path: Path) -> None:
    """A file that is rejected for its size does not take memory of that size."""
    path.mkdir()
    (path / "verify-token").write_bytes(b"t")
    (path / "app-secret").write_bytes(SECRET)
    directory = CredentialsDirectory(path)
    directory.look()
    os.truncate(path / "app-secret", 64 * 1024 * 1024)
    tracemalloc.start()
    assert not directory.look()
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 1024 * 1024
    assert directory.stale
    assert directory.problems == (f"{path}/app-secret can't be read (larger than 65536 bytes)",)
    assert directory.current.app_secrets == (SECRET,)


def test_the_log_key_is_optional_and_stays(path: Path) -> None:
    """Without it nothing is missing; once read, its last good value stays like the others."""
    lay(path, "1", verify_token=b"t", app_secret=SECRET)
    directory = CredentialsDirectory(path)
    directory.look()
    assert directory.current.log_key is None
    assert directory.problems == ()
    lay(path, "2", verify_token=b"t", app_secret=SECRET, log_key=b"key\nolder\n")
    assert directory.look()
    assert directory.current.log_key == b"key"
    (path / "..2" / "log-key").write_bytes(b" ")
    assert not directory.look()
    assert directory.current.log_key == b"key"
    assert directory.problems == (f"{path}/log-key contains no value",)
    assert directory.stale
    (path / "log-key").unlink()
    assert not directory.look()
    assert directory.current.log_key == b"key"


NOT_VALUES = {
    "UTF-16 with a byte order mark, as PowerShell's > writes it": "the-secret-0123456789\r\n".encode("utf-16"),
    "UTF-16, big endian, with a byte order mark": b"\xfe\xff" + "the-secret-0123456789\n".encode("utf-16-be"),
    "UTF-16 without a byte order mark": "the-secret-0123456789\n".encode("utf-16-le"),
    "UTF-32 with a byte order mark": "the-secret-0123456789\n".encode("utf-32"),
    "UTF-32, big endian": "the-secret-0123456789\n".encode("utf-32-be"),
    "UTF-16 of characters without a zero byte": b"\xff\xfe" + "验证令牌验证令牌验证令牌验证令牌".encode("utf-16-le"),
    "a NUL alone": b"\0",
    "a NUL behind a value": SECRET + b"\0\n",
    "a NUL in the second line": SECRET + b"\n\0\n",
    "a control character": SECRET + b"\x1b[0m",
    "a vertical tab at the end": SECRET + b"\x0b",
    "a form feed alone in a line": SECRET + b"\n\x0c\n",
    "DEL": SECRET + b"\x7f",
    "a C1 control character": SECRET + "\x85".encode(),
    "a byte order mark in the second line, as two files put together": SECRET + b"\n" + "\ufeffother".encode(),
    "Latin-1": "Prüfwort-0123456789".encode("latin-1"),
    "a JSON object on three lines": b'{\n  "app-secret": "0123456789abcdef0123456789abcdef"\n}\n',
    "a JSON object on one line": b'{"app-secret": "0123456789abcdef0123456789abcdef"}',
    "a JSON array": b'[\n"0123456789abcdef0123456789abcdef"\n]\n',
    "a JSON object with a comma too many": b'{\n  "verify-token": "0123456789abcdef",\n}\n',
    "a JSON object that is cut": b'{"app-secret": "0123456789abcdef0123456789abcdef"',
    "JSON nested too deep": b"[" * 5000,
    "two JSON objects": b'{"a": "0123456789abcdef"}\n{"b": "0123456789abcdef"}\n',
    "a JSON object with a byte order mark": b'\xef\xbb\xbf{"app-secret": "0123456789abcdef0123456789abcdef"}',
}


@pytest.mark.parametrize("name", ["verify-token", "app-secret", "log-key"])
@pytest.mark.parametrize("content", NOT_VALUES.values(), ids=NOT_VALUES)
def test_invalid_content_is_never_accepted(path: Path, content: bytes, name: str) -> None:
    """One invalid line makes the file invalid: nothing in it is accepted, and the last good values stay."""
    with pytest.raises(ValueError, match="write"):
        parse_values(content)
    path.mkdir()
    for file in ("verify-token", "app-secret", "log-key"):
        (path / file).write_bytes(content if file == name else SECRET)
    directory = CredentialsDirectory(path)
    directory.look()
    accepted = [*directory.current.verify_tokens, *directory.current.app_secrets, directory.current.log_key]
    assert set(accepted) <= {SECRET, None}
    assert len(directory.problems) == 1
    assert directory.problems[0].startswith(f"{path / name} ")
    if name != "log-key":
        assert directory.missing is not None
        assert directory.problems[0] in directory.missing
    (path / name).write_bytes(SECRET)
    directory.look()
    good = directory.current
    (path / name).write_bytes(content)
    assert not directory.look()
    assert directory.current == good
    assert directory.missing is None
    assert directory.stale


@pytest.mark.parametrize(
    "content",
    [
        b"short",
        b"# the app secret of production\n" + SECRET,
        b"-----BEGIN PRIVATE KEY-----\n" + SECRET + b"\n-----END PRIVATE KEY-----",
        b"a" * 15,
        SECRET + b"\n" + b"a" * 15,
        "Prüfwort-mit-sechzehn".encode(),
    ],
)
def test_an_invalid_app_secret(path: Path, content: bytes) -> None:
    """A line that is not an app secret makes the file invalid; as a verify token it is accepted."""
    lay(path, "1", verify_token=content, app_secret=content)
    directory = CredentialsDirectory(path)
    directory.look()
    assert directory.current.app_secrets == ()
    assert directory.current.verify_tokens == tuple(content.splitlines())
    assert "32 hex digits" in directory.missing
    assert content.splitlines()[-1].decode() not in directory.missing.replace(str(path), "")


def test_the_shortest_app_secret(path: Path) -> None:
    """16 printable ASCII characters are accepted, including a space."""
    lay(path, "1", verify_token=b"t", app_secret=b"0123456 89abcd~!")
    directory = CredentialsDirectory(path)
    directory.look()
    assert directory.current.app_secrets == (b"0123456 89abcd~!",)


@pytest.mark.parametrize(
    ("token", "weakness"),
    [
        (b"CHOOSE-ONE", "a placeholder"),
        (b"changeme", "a placeholder"),
        (b"<your-token>", "a placeholder"),
        (b"1234567", "shorter than 8"),
    ],
)
def test_a_weak_verify_token_is_a_warning(path: Path, token: bytes, weakness: str) -> None:
    """It is accepted; the warning has its line number, never its text."""
    lay(path, "1", verify_token=SECRET + b"\n" + token, app_secret=SECRET)
    directory = CredentialsDirectory(path)
    directory.look()
    assert directory.missing is None
    assert directory.current.verify_tokens == (SECRET, token)
    (warning,) = weak_verify_tokens(directory.current.verify_tokens)
    assert weakness in warning
    assert "line 2" in warning
    assert token.decode() not in warning
    assert weak_verify_tokens((SECRET, b"12345678")) == ()


def test_an_invalid_file_name(tmp_path: Path) -> None:
    """A NUL in a file name raises UnusableFile."""
    with pytest.raises(UnusableFile, match="not a file name"):
        read_values(tmp_path / "a\0b")
