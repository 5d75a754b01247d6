"""The destinations in force, with their secrets: read again when the files change, the last good ones kept."""

from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

from service.credentials import MOST_VALUES, content_of, values_in
from service.errors import ConfigurationError
from service.relay import destinations, message
from service.relay.destinations import CLOUDEVENTS, Destination


class Entry(NamedTuple):
    """A destination and what signs for it, the current secret first."""

    destination: Destination
    secrets: tuple[bytes, ...]


class Book:
    """Keeps what was good last, whatever becomes of the files."""

    def __init__(self, path: Path) -> None:
        """*path* is the destinations file; secrets that it names without a leading slash lie beside it."""
        self._path = path
        self._content: bytes | None = None
        self._bad: tuple[str, ...] = ()
        self._found: tuple[Destination, ...] = ()
        self.wanted: Mapping[str, Destination] | None = None  # what the file says, also where its secret is missing
        self.entries: Mapping[str, Entry] = {}
        self.problems: tuple[str, ...] = ("the destinations file was not read yet",)

    def look(self) -> None:
        """Read the files again, into `entries`; what is wrong with them is in `problems`.

        A file that can't be taken leaves all as it was; a secret that can't, leaves its destination as it was.
        """
        problems: list[str] = []
        try:
            content = content_of(self._path)
        except OSError as ex:
            self.problems = (f"{self._path}: can't be read ({ex.strerror})",)
            return
        if content != self._content:
            self._content = content
            try:
                self._found, self._bad = destinations.parse(content, str(self._path)), ()
            except ConfigurationError as ex:
                self._bad = ex.problems
        if self._bad:
            self.problems = self._bad
            return
        entries = {}
        for destination in self._found:
            secrets = self._secrets(destination, problems)
            if secrets:
                entries[destination.name] = Entry(destination, secrets)
            elif destination.name in self.entries:
                entries[destination.name] = self.entries[destination.name]
        self.problems = tuple(problems)
        self.wanted = {destination.name: destination for destination in self._found}
        self.entries = entries

    def _secrets(self, destination: Destination, problems: list[str]) -> tuple[bytes, ...]:
        file = self._path.parent / destination.secret_file
        label = f"{self._path}: destination {destination.name!r}: secretFile {file}"
        try:
            secrets = values_in(content_of(file))
        except (OSError, ValueError) as ex:
            why = ex.strerror if isinstance(ex, OSError) else "it is no name of a file"
            problems.append(f"{label} can't be read ({why})")
            return ()
        wrong = [f"wants 1 to {MOST_VALUES} values, one a line"] if not 0 < len(secrets) <= MOST_VALUES else []
        if destination.format == CLOUDEVENTS:
            wrong += _bad_keys(secrets)
        problems += [f"{label} {problem}" for problem in wrong]
        return () if wrong else secrets


def _bad_keys(secrets: tuple[bytes, ...]) -> list[str]:
    found = []
    for line, secret in enumerate(secrets, start=1):
        try:
            message.key_of(secret)
        except ValueError as ex:
            found.append(f"{ex} (line {line})")
    return found
