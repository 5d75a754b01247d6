"""`doctor --signature`: why the signature of a notification was refused."""

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
from service.doctor.explain.signature import Key, Kind
from service.doctor.explain.signature import explain as explain_signature

MAX_CAUGHT_BYTES: Final = 33_554_432  # bytes of a file
SHOWN_DIGITS: Final = 12
_POST: Final = re.compile(rb"^POST \S+ HTTP/[0-9.]+\r?\n", re.MULTILINE)
_GET: Final = re.compile(rb"(GET|HEAD) \S+ HTTP/")
_FIELD: Final = re.compile(rb"[A-Za-z0-9-]+: ?[^\n]*\n")


class CaughtRequest(NamedTuple):
    """A request as it was caught: its body, its signature's header (None for none), and other apps' secrets."""

    body: bytes
    header: str | None
    candidates: tuple[Key, ...]


def _caught(file: Path | None, header: str | None, candidates: tuple[Path, ...]) -> CaughtRequest | None:
    if file is None and (header is not None or candidates):
        raise click.UsageError("--header and --candidate go with --signature FILE.")
    if header is not None and not header.strip():
        raise click.UsageError(f"--header is empty: what did {signature.HEADER} say?")
    return _read(file, header, candidates) if file else None


_REQUEST: Final = click.Path(path_type=Path, exists=True, dir_okay=False, allow_dash=True)
_FILE: Final = click.Path(path_type=Path, exists=True, dir_okay=False)
options = option_group(
    "request",
    _caught,
    (
        click.option(
            "--signature", "file", metavar="FILE", type=_REQUEST, help="Explain this request's signature instead."
        ),
        click.option(
            "--header", metavar="TEXT", help=f"With --signature: its {signature.HEADER}, if FILE is a body alone."
        ),
        click.option(
            "--candidate",
            "candidates",
            metavar="FILE",
            type=_FILE,
            multiple=True,
            help="With --signature: the file of another app's secret, which it may be signed with; may repeat.",
        ),
    ),
)


def explain(request: CaughtRequest, directory: Path, *, as_json: bool) -> None:
    """Say it, and end with 1 where the signature is not right."""
    given = secrets_source.read(directory, os.environ)
    kind = Kind(
        _lines(directory, APP_SECRET, given.app_secret),
        _lines(directory, VERIFY_TOKEN, given.verify_token),
        request.candidates,
    )
    if not kind.in_force:
        given.require(APP_SECRET)
    verdict = explain_signature(request.body, request.header, kind)
    if as_json:
        document = {
            "ok": verdict.is_good,
            "explained": verdict.is_found,
            "what": verdict.what,
            "remedy": verdict.remedy,
        }
        click.echo(json.dumps(document, indent=2))
    else:
        click.echo(f"{verdict.what}\n-> {verdict.remedy}")
    raise SystemExit(0 if verdict.is_good else 1)


def _lines(directory: Path, name: str, given: bytes) -> list[Key]:
    try:
        values = read_values(directory / name)
    except UnusableFile as ex:
        if not ex.is_empty:
            raise click.ClickException(f"{ex}: the service takes none of it.") from ex
        values = ()
    found = [Key(f"line {position} of {name}", value) for position, value in enumerate(values, start=1)]
    return found if not given or given in values else [Key(f"the {name} of the environment", given)]


def _read(file: Path, header: str | None, candidates: tuple[Path, ...]) -> CaughtRequest:
    with sys.stdin.buffer if str(file) == "-" else file.open("rb") as stream:
        raw = stream.read(MAX_CAUGHT_BYTES + 1).removeprefix(b"\xef\xbb\xbf")
    if len(raw) > MAX_CAUGHT_BYTES:
        raise click.UsageError(f"FILE is above {MAX_CAUGHT_BYTES} bytes, and so more than one request.")
    try:
        others = tuple(
            Key(f"{each}, line {position}", value)
            for each in candidates
            for position, value in enumerate(read_values(each), start=1)
        )
    except UnusableFile as ex:
        raise click.UsageError(f"--candidate: {ex}.") from ex
    if header is not None:
        return CaughtRequest(raw, header.rpartition(":")[2].strip(" \t\r\n'\""), others)
    if found := _POST.search(raw):  # what was asked before on the same connection is not it
        raw = raw[found.end() :]
    elif _GET.match(raw):
        raise click.UsageError("This is a GET, which is not signed: take the request that begins with POST.")
    elif not _FIELD.match(raw):
        raise click.UsageError(
            f"FILE begins with no head of a request: name its {signature.HEADER} with --header, or save all of it."
        )
    return _with_head(raw, others)


def _with_head(raw: bytes, others: tuple[Key, ...]) -> CaughtRequest:
    stream = io.BytesIO(raw)
    try:
        head = http.client.parse_headers(stream)
    except http.client.HTTPException as ex:
        raise click.UsageError(f"The head of the request in FILE can't be read: {ex}.") from ex
    body = stream.read()
    told = head.get("Content-Length", "").strip()
    length = int(told) if told.isascii() and told.isdigit() and len(told) < SHOWN_DIGITS else None
    if head.get("Transfer-Encoding", "").strip().lower().endswith("chunked"):
        body = _joined(body)
    elif length is not None and len(body) < length:
        raise click.UsageError(f"Only {len(body)} of {length} bytes of the body are in FILE: the rest was not caught.")
    elif length is not None:
        body = body[:length]  # then an editor's line end follows, or the next request
    found = head.get_all(signature.HEADER)
    return CaughtRequest(body, ", ".join(found) if found else head.get("X-Hub-Signature"), others)


def _joined(chunks: bytes) -> bytes:
    """Put chunks together; what is in none, as where that was done already, is given as it is."""
    stream, body = io.BytesIO(chunks), list[bytes]()
    while (size := _size(stream.readline())) is not None:
        if not size:
            return b"".join(body)
        body.append(stream.read(size))
        stream.readline()
    if body:
        raise click.UsageError("The last chunk of the body is not in FILE: the rest was not caught.")
    return chunks


def _size(line: bytes) -> int | None:
    digits = line.partition(b";")[0].strip()
    return int(digits, 16) if re.fullmatch(rb"[0-9a-fA-F]{1,8}", digits) else None
