"""Parses the destinations file: each destination's URL, format, signing secret and filter; reports all problems."""

import difflib
import re
from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Final, Literal
from urllib.parse import urlsplit

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, field_validator, model_validator
from pydantic.alias_generators import to_camel
from pydantic_core import ErrorDetails
from ruamel.yaml import YAML
from ruamel.yaml.constructor import DuplicateKeyError
from urllib3.util import parse_url

from service.config import duration
from service.errors import ConfigurationError
from service.events import UNRECOGNIZED, Event
from service.events.event_filter import EventFilter
from service.relay.delivery_options import Backoff, DeliveryOptions

META_FORMAT: Final = "meta"
CLOUDEVENTS_FORMAT: Final = "cloudevents"
MAX_TIMEOUT_SECONDS: Final = 60.0
# Headers that the relay sets itself, so a destination's own headers must not.
RELAY_HEADERS: Final = re.compile(
    r"(?i)host|content-.*|transfer-encoding|connection|x-hub-.*|ce-.*|webhook-.*|traceparent|tracestate|user-agent"
)
_TOKEN: Final = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_VALUE: Final = re.compile(r"[\t -~]*")


def is_header_value(value: str) -> bool:
    """Return whether *value* is a valid header value: printable ASCII, without line breaks."""
    return bool(_VALUE.fullmatch(value))


def _seconds(value: object) -> object:
    return duration(value) if isinstance(value, str) else value


class HeaderFile(BaseModel):
    """A header value that is a credential: the first line of a file beside the `secretFile`."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    file: Annotated[str, Field(min_length=1)]


class Destination(EventFilter):
    """One HTTP endpoint of the user's, with its filter."""

    name: Annotated[str, Field(pattern=r"^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$")]
    url: str
    format: Literal["meta", "cloudevents"]
    secret_file: str
    headers: dict[str, str | HeaderFile] = {}  # noqa: RUF012  pydantic copies it
    concurrency: Annotated[int, Field(ge=1, le=256)] = 4
    timeout: Annotated[float, BeforeValidator(_seconds), Field(gt=0, le=MAX_TIMEOUT_SECONDS)] = 10.0
    tests: bool = False
    internal: bool = False
    begin: Annotated[Literal["now", "beginning"], Field(alias="from")] = "now"
    delivery: DeliveryOptions = DeliveryOptions()
    keep_responses: bool = True

    @field_validator("url")
    @classmethod
    def _is_url(cls, url: str) -> str:
        try:
            parts = urlsplit(url)
            parse_url(url)  # urllib3, which connects, is stricter
            is_valid = parts.scheme in ("http", "https") and parts.hostname and (parts.port is None or parts.port > 0)
        except ValueError:
            is_valid = False
        if not is_valid or not url.isascii() or not url.isprintable() or " " in url:
            raise ValueError("must be a URL such as https://app.example.com/webhook")
        if parts.username is not None or parts.fragment:
            raise ValueError("must not contain a user, a password or a fragment: put credentials into `headers`")
        return url

    @field_validator("headers")
    @classmethod
    def _are_headers(cls, headers: dict[str, str | HeaderFile]) -> dict[str, str | HeaderFile]:
        for name, value in headers.items():
            if not _TOKEN.fullmatch(name) or not (isinstance(value, HeaderFile) or is_header_value(value)):
                raise ValueError(f"{name!r} must be a valid header name, and its value printable ASCII on one line")
            if RELAY_HEADERS.fullmatch(name):
                raise ValueError(f"{name!r} is set by the relay and can't be overridden")
        return headers

    @model_validator(mode="after")
    def _is_safe(self) -> "Destination":
        if self.url.startswith("http:") and not self.internal:
            raise ValueError("url: http:// requires `internal: true`, for a destination inside your own network")
        return self

    @property
    def origin(self) -> str:
        """Return scheme, host and port of the URL, for logs: path and query may contain a secret."""
        scheme, _, rest = self.url.partition("://")
        return f"{scheme}://{re.split('[/?]', rest, maxsplit=1)[0]}"

    def mismatch(self, event: Event) -> str | None:
        """Return the first option because of which *event* is not delivered; None if it is."""
        if event.test and not self.tests:
            return "tests"
        if event.type == UNRECOGNIZED and self.format == META_FORMAT and UNRECOGNIZED not in self.types:
            return "format"  # its body is not a notification, which an application for Meta's format expects
        return super().mismatch(event)


def parse(content: bytes, path: str) -> tuple[Destination, ...]:
    """Return the destinations in the YAML text of the file *path*.

    Raises ConfigurationError with all problems, each with the destination's name.
    """
    items = _items(content, path)
    problems: list[str] = []
    valid: list[Destination] = []
    for index, item in enumerate(items):
        name = item.get("name") if isinstance(item, Mapping) else None
        label = f"{path}: destination {name!r}" if isinstance(name, str) else f"{path}: destination {index + 1}"
        try:
            valid.append(Destination.model_validate(item))
        except ValidationError as ex:
            problems += [f"{label}: {_problem(error)}" for error in ex.errors()]
    names = [destination.name for destination in valid]
    problems += [
        f"{path}: two destinations have the name {name!r}" for name in sorted(set(names)) if names.count(name) > 1
    ]
    if problems:
        raise ConfigurationError(problems)
    return tuple(valid)


def _items(content: bytes, path: str) -> Sequence[Any]:
    try:
        document = YAML(typ="safe", pure=True).load(content.decode())
    except Exception as ex:
        raise ConfigurationError([f"{path}: invalid YAML: {_syntax_problem(ex)}"]) from ex
    if not isinstance(document, dict) or list(document) != ["destinations"]:
        raise ConfigurationError([f"{path}: must have exactly one key, `destinations`, with a list as its value"])
    items = document["destinations"]
    if items is None:
        return ()
    if not isinstance(items, list):
        raise ConfigurationError([f"{path}: `destinations` must be a list"])
    return items


def _syntax_problem(ex: Exception) -> str:
    """Return the problem and its line and column, without quoting the text there: it may be a secret."""
    mark = getattr(ex, "problem_mark", None)
    problem = "duplicate key" if isinstance(ex, DuplicateKeyError) else getattr(ex, "problem", None)
    text = problem if mark and problem and "'" not in problem and '"' not in problem else "can't be parsed"
    return f"{text} (line {mark.line + 1}, column {mark.column + 1})" if mark else f"{text} ({type(ex).__name__})"


_NESTED: Final[Mapping[tuple[int | str, ...], type[BaseModel]]] = {
    ("delivery",): DeliveryOptions,
    ("delivery", "backoff"): Backoff,
}


def _problem(error: ErrorDetails) -> str:
    location = ".".join(str(step) for step in error["loc"])
    if error["type"] == "extra_forbidden":
        model = _NESTED.get(error["loc"][:-1], Destination)
        known = [to_camel(name) if name != "begin" else "from" for name in model.model_fields]
        near = difflib.get_close_matches(str(error["loc"][-1]), known, n=1)
        return f"unknown key {location}" + (f": did you mean {near[0]}?" if near else f"; known: {', '.join(known)}")
    text = error["msg"].removeprefix("Value error, ")
    return f"{location}: {text[0].lower()}{text[1:]}" if location else text
