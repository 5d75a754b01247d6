"""The destinations with their secrets, reloaded when the files change."""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from service.credentials import MIN_APP_SECRET_CHARACTERS, UnusableFile, is_app_secret, read_content, read_values
from service.errors import ConfigurationError
from service.meta import webhook_fields
from service.relay import destinations, message
from service.relay.destinations import CLOUDEVENTS_FORMAT, Destination, is_header_value
from service.reloading import Reloading


class Entry(NamedTuple):
    """A destination with its signing secrets, the current one first."""

    destination: Destination
    secrets: tuple[bytes, ...]
    headers: Mapping[str, str]  # the destination's own, with values from files filled in


class Destinations(NamedTuple):
    """The destinations of the file, and those of them that can be delivered to."""

    configured: Mapping[str, Destination] | None = None  # also those without a secret; None before the first read
    entries: Mapping[str, Entry] = {}
    warnings: tuple[str, ...] = ()


class DestinationRegistry(Reloading[Destinations]):
    """The destinations of a file, with their secrets.

    An invalid file changes nothing. An invalid secret or header leaves its destination unchanged.
    """

    def __init__(self, path: Path) -> None:
        """*path* is the destinations file; paths of secrets in it are relative to its directory."""
        super().__init__(self._read_files, Destinations())
        self._path = path
        self._content: bytes | None = None
        self._file_problems: tuple[str, ...] = ()
        self._parsed: tuple[Destination, ...] = ()
        self.problems = ("the destinations file has not been read yet",)

    def _read_files(self, before: Destinations) -> tuple[Destinations, Sequence[str]]:
        try:
            content = read_content(self._path)
        except OSError as ex:
            return before, (f"{self._path}: can't be read ({ex.strerror})",)
        if content != self._content:
            self._content = content
            try:
                self._parsed, self._file_problems = destinations.parse(content, str(self._path)), ()
            except ConfigurationError as ex:
                self._file_problems = ex.problems
        if self._file_problems:
            return before, self._file_problems
        problems: list[str] = []
        entries = {}
        for destination in self._parsed:
            secrets = self._secrets(destination, problems)
            headers = self._headers(destination, problems)
            if secrets and headers is not None:
                entries[destination.name] = Entry(destination, secrets, headers)
            elif destination.name in before.entries:
                entries[destination.name] = before.entries[destination.name]
        configured = {destination.name: destination for destination in self._parsed}
        warnings = (*filter(None, map(_secret_warning, entries.values())), *_type_warnings(self._parsed))
        return Destinations(configured, entries, warnings), problems

    def _secrets(self, destination: Destination, problems: list[str]) -> tuple[bytes, ...]:
        label = f"{self._path}: destination {destination.name!r}: secretFile"
        file, secrets = self._values(destination.secret_file, label, problems)
        key_problems = _key_problems(secrets) if destination.format == CLOUDEVENTS_FORMAT else []
        problems += [f"{label} {file} {problem}" for problem in key_problems]
        return () if key_problems else secrets

    def _headers(self, destination: Destination, problems: list[str]) -> Mapping[str, str] | None:
        """Return the destination's own headers; None if the value of one is missing or invalid."""
        headers: dict[str, str] = {}
        for name, value in destination.headers.items():
            if isinstance(value, str):
                headers[name] = value
                continue
            label = f"{self._path}: destination {destination.name!r}: headers.{name}.file"
            file, values = self._values(value.file, label, problems)
            text = values[0].decode() if values else ""
            if is_header_value(text) and text:
                headers[name] = text
            elif text:
                problems.append(f"{label} {file} is not a valid header value: it must be printable ASCII")
        return headers if headers.keys() == destination.headers.keys() else None

    def _values(self, name: str, label: str, problems: list[str]) -> tuple[Path, tuple[bytes, ...]]:
        file = self._path.parent / name
        try:
            return file, read_values(file)
        except UnusableFile as ex:
            problems.append(f"{label} {file} {str(ex).removeprefix(f'{file} ')}")
            return file, ()


def _type_warnings(parsed: Sequence[Destination]) -> Iterator[str]:
    """Yield a warning for each pattern of a filter that matches no known event type, so that it may be misspelt."""
    for destination in parsed:
        for option, patterns in (("types", destination.types), ("notTypes", destination.not_types)):
            for warning in webhook_fields.unmatched(patterns):
                yield f"destination {destination.name!r}: {option}: {warning}"


def _secret_warning(entry: Entry) -> str:
    """Return a warning if the signing secret of a destination in Meta's format can be guessed, else an empty string."""
    if entry.destination.format == CLOUDEVENTS_FORMAT or all(map(is_app_secret, entry.secrets)):
        return ""
    return (
        f"destination {entry.destination.name!r}: the signing secret has fewer than {MIN_APP_SECRET_CHARACTERS} "
        "printable ASCII characters and could be guessed. Generate a new one with `openssl rand -hex 16`."
    )


def _key_problems(secrets: tuple[bytes, ...]) -> list[str]:
    problems = []
    for line, secret in enumerate(secrets, start=1):
        try:
            message.key_of(secret)
        except ValueError as ex:
            problems.append(f"{ex} (line {line})")
    return problems
