"""`doctor --signature`: explain why the signature of a notification was rejected."""

import http.client
import io
import json
import os
import re
import sys
from pathlib import Path
from typing import Final, NamedTuple

import click

from service import signature
from service.cli.meta import secrets_source
from service.cli.shared_options import option_group
from service.credentials import APP_SECRET, VERIFY_TOKEN, UnusableFile, read_values
from service.doctor.explain.signature import SigningKey, SigningKeys
from service.doctor.explain.signature import explain as explain_signature

MAX_CAPTURED_BYTES: Final = 33_554_432  # of FILE
MAX_LENGTH_CHARACTERS: Final = 12  # of a Content-Length
_POST: Final = re.compile(rb"^POST \S+ HTTP/[0-9.]+\r?\n", re.MULTILINE)
_GET: Final = re.compile(rb"(GET|HEAD) \S+ HTTP/")
_FIELD: Final = re.compile(rb"[A-Za-z0-9-]+: ?[^\n]*\n")


class CaughtRequest(NamedTuple):
    """A captured request: its body, its signature header (None for none), and other apps' secrets to try."""

    body: bytes
    header: str | None
    candidates: tuple[SigningKey, ...]


def _captured(file: Path | None, header: str | None, candidates: tuple[Path, ...]) -> CaughtRequest | None:
    if file is None and (header is not None or candidates):
        raise click.UsageError("--header and --candidate require --signature FILE.")
    if header is not None and not header.strip():
        raise click.UsageError(f"--header is empty: give the value of the request's {signature.HEADER} header.")
    return _read(file, header, candidates) if file else None


_REQUEST: Final = click.Path(path_type=Path, exists=True, dir_okay=False, allow_dash=True)
_FILE: Final = click.Path(path_type=Path, exists=True, dir_okay=False)
options = option_group(
    "request",
    _captured,
    (
        click.option(
            "--signature",
            "file",
            metavar="FILE",
            type=_REQUEST,
            help="Explain why the signature of the request in FILE was rejected; make no other check.",
        ),
        click.option(
            "--header",
            metavar="TEXT",
            help=f"With --signature: the value of the {signature.HEADER} header, if FILE contains only the body.",
        ),
        click.option(
            "--candidate",
            "candidates",
            metavar="FILE",
            type=_FILE,
            multiple=True,
            help="With --signature: a file with the secret of another app, to try as well; can be repeated.",
        ),
    ),
)


def explain(request: CaughtRequest, directory: Path, *, as_json: bool) -> None:
    """Print the explanation, and exit with status 0 if the signature is right, else with 1."""
    source = secrets_source.read(directory, os.environ)
    keys = SigningKeys(
        _keys(directory, APP_SECRET, source.app_secret),
        _keys(directory, VERIFY_TOKEN, source.verify_token),
        request.candidates,
    )
    if not keys.accepted:
        source.require(APP_SECRET)
    explanation = explain_signature(request.body, request.header, keys)
    if as_json:
        document = {
            "ok": explanation.is_good,
            "explained": explanation.is_found,
            "what": explanation.what,
            "remedy": explanation.remedy,
        }
        click.echo(json.dumps(document, indent=2))
    else:
        click.echo(f"{explanation.what}\n-> {explanation.remedy}")
    raise SystemExit(0 if explanation.is_good else 1)


def _keys(directory: Path, name: str, from_source: bytes) -> list[SigningKey]:
    """Return the values of a credentials file, or *from_source* if that is not one of them (so an environment's)."""
    try:
        values = read_values(directory / name)
    except UnusableFile as ex:
        if not ex.is_empty:
            raise click.ClickException(f"{ex}: the service accepts none of its values.") from ex
        values = ()
    keys = [SigningKey(f"line {position} of {name}", value) for position, value in enumerate(values, start=1)]
    if not from_source or from_source in values:
        return keys
    return [SigningKey(f"the {name} of the environment", from_source)]


def _read(file: Path, header: str | None, candidates: tuple[Path, ...]) -> CaughtRequest:
    with sys.stdin.buffer if str(file) == "-" else file.open("rb") as stream:
        raw = stream.read(MAX_CAPTURED_BYTES + 1).removeprefix(b"\xef\xbb\xbf")
    if len(raw) > MAX_CAPTURED_BYTES:
        raise click.UsageError(f"FILE is larger than {MAX_CAPTURED_BYTES} bytes: give a file with one request.")
    try:
        others = tuple(
            SigningKey(f"{each}, line {position}", value)
            for each in candidates
            for position, value in enumerate(read_values(each), start=1)
        )
    except UnusableFile as ex:
        raise click.UsageError(f"--candidate: {ex}.") from ex
    if header is not None:
        return CaughtRequest(raw, header.rpartition(":")[2].strip(" \t\r\n'\""), others)
    if found := _POST.search(raw):  # skips earlier requests of the same connection
        raw = raw[found.end() :]
    elif _GET.match(raw):
        raise click.UsageError("FILE contains a GET, which is not signed: give the request that starts with POST.")
    elif not _FIELD.match(raw):
        raise click.UsageError(
            f"FILE does not start with the head of a request: give the value of its {signature.HEADER} header with "
            "--header, or save the whole request."
        )
    return _with_head(raw, others)


def _with_head(raw: bytes, others: tuple[SigningKey, ...]) -> CaughtRequest:
    stream = io.BytesIO(raw)
    try:
        head = http.client.parse_headers(stream)
    except http.client.HTTPException as ex:
        raise click.UsageError(f"The head of the request in FILE can't be parsed: {ex}.") from ex
    body = stream.read()
    text = head.get("Content-Length", "").strip()
    length = int(text) if text.isascii() and text.isdigit() and len(text) < MAX_LENGTH_CHARACTERS else None
    if head.get("Transfer-Encoding", "").strip().lower().endswith("chunked"):
        body = _unchunked(body)
    elif length is not None and len(body) < length:
        raise click.UsageError(
            f"FILE contains only {len(body)} of {length} bytes of the body: the rest was not captured."
        )
    elif length is not None:
        body = body[:length]  # drops a line end that an editor added, and the next request
    found = head.get_all(signature.HEADER)
    return CaughtRequest(body, ", ".join(found) if found else head.get("X-Hub-Signature"), others)


def _unchunked(chunks: bytes) -> bytes:
    """Return the body of a chunked request; a body that was decoded before is returned unchanged."""
    stream, body = io.BytesIO(chunks), list[bytes]()
    while (size := _size(stream.readline())) is not None:
        if not size:
            return b"".join(body)
        body.append(stream.read(size))
        stream.readline()
    if body:
        raise click.UsageError("The last chunk of the body is not in FILE: the rest was not captured.")
    return chunks


def _size(line: bytes) -> int | None:
    digits = line.partition(b";")[0].strip()
    return int(digits, 16) if re.fullmatch(rb"[0-9a-fA-F]{1,8}", digits) else None
