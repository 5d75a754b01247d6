"""The destinations to deliver to, with their secrets, read again when the files change."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from service.credentials import MIN_APP_SECRET_CHARACTERS, UnusableFile, is_app_secret, read_content, read_values
from service.errors import ConfigurationError
from service.relay import destinations, message
from service.relay.destinations import CLOUDEVENTS_FORMAT, Destination, is_header_value
from service.reloading import Reloading


class Entry(NamedTuple):
    """A destination and what signs for it, the current secret first."""

    destination: Destination
    secrets: tuple[bytes, ...]
    headers: Mapping[str, str]  # the destination's own, with the values that are in files


class Destinations(NamedTuple):
    """What the destinations file says, and what of it can be delivered to."""

    wanted: Mapping[str, Destination] | None = None  # all of the file, also where a secret is missing; None before
    entries: Mapping[str, Entry] = {}
    warnings: tuple[str, ...] = ()


class DestinationRegistry(Reloading[Destinations]):
    """The destinations of a file, with their secrets.

    A file that can't be taken leaves all as it was; a secret or header that can't, leaves its destination so.
    """

    def __init__(self, path: Path) -> None:
        """*path* is the destinations file; secrets that it names without a leading slash lie beside it."""
        super().__init__(self._read_files, Destinations())
        self._path = path
        self._content: bytes | None = None
        self._bad: tuple[str, ...] = ()
        self._found: tuple[Destination, ...] = ()
        self.problems = ("the destinations file was not read yet",)

    def _read_files(self, before: Destinations) -> tuple[Destinations, Sequence[str]]:
        try:
            content = read_content(self._path)
        except OSError as ex:
            return before, (f"{self._path}: can't be read ({ex.strerror})",)
        if content != self._content:
            self._content = content
            try:
                self._found, self._bad = destinations.parse(content, str(self._path)), ()
            except ConfigurationError as ex:
                self._bad = ex.problems
        if self._bad:
            return before, self._bad
        problems: list[str] = []
        entries = {}
        for destination in self._found:
            secrets = self._secrets(destination, problems)
            headers = self._headers(destination, problems)
            if secrets and headers is not None:
                entries[destination.name] = Entry(destination, secrets, headers)
            elif destination.name in before.entries:
                entries[destination.name] = before.entries[destination.name]
        wanted = {destination.name: destination for destination in self._found}
        return Destinations(wanted, entries, tuple(filter(None, map(_warning, entries.values())))), problems

    def _secrets(self, destination: Destination, problems: list[str]) -> tuple[bytes, ...]:
        label = f"{self._path}: destination {destination.name!r}: secretFile"
        file, secrets = self._values(destination.secret_file, label, problems)
        wrong = _bad_keys(secrets) if destination.format == CLOUDEVENTS_FORMAT else []
        problems += [f"{label} {file} {problem}" for problem in wrong]
        return () if wrong else secrets

    def _headers(self, destination: Destination, problems: list[str]) -> Mapping[str, str] | None:
        """Return the destination's own headers; None if one has no value."""
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
                problems.append(f"{label} {file} holds what no header can: printable ASCII is wanted")
        return headers if headers.keys() == destination.headers.keys() else None

    def _values(self, name: str, label: str, problems: list[str]) -> tuple[Path, tuple[bytes, ...]]:
        file = self._path.parent / name
        try:
            return file, read_values(file)
        except UnusableFile as ex:
            problems.append(f"{label} {file} {str(ex).removeprefix(f'{file} ')}")
            return file, ()


def _warning(entry: Entry) -> str:
    """Return a sentence if the application behind a destination would accept what a stranger may sign."""
    if entry.destination.format == CLOUDEVENTS_FORMAT or all(map(is_app_secret, entry.secrets)):
        return ""
    return (
        f"destination {entry.destination.name!r}: its signing secret is shorter than {MIN_APP_SECRET_CHARACTERS} "
        "printable ASCII characters, so that a stranger may guess it: `openssl rand -hex 16` makes a better one."
    )


def _bad_keys(secrets: tuple[bytes, ...]) -> list[str]:
    found = []
    for line, secret in enumerate(secrets, start=1):
        try:
            message.key_of(secret)
        except ValueError as ex:
            found.append(f"{ex} (line {line})")
    return found
