"""The chart's table of values and the descriptions in its schema, made from values.yaml by `make docs`."""

import json
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final

import yaml

ROOT: Final = Path(__file__).parents[2]
CHART: Final = ROOT / "deploy" / "helm"
SCHEMA: Final = CHART / "values.schema.json"
VALUES: Final = CHART / "values.yaml"
_KEY: Final = re.compile(r"( *)([A-Za-z_]+):( .*)?")
# The tables with the options of a destination, by the path of the schema's properties that they describe.
_OPTION_TABLES: Final = {
    "relay.destinations[]": "## The destinations file",
    "relay.destinations[].delivery": "### Delivery options",
}


def comments() -> Mapping[str, str]:
    """Return the comment above each value, by path."""
    found: dict[str, str] = {}
    path: list[str] = []
    comment: list[str] = []
    for line in VALUES.read_text().splitlines():
        text = line.strip()
        if text.startswith("#"):
            text = text.removeprefix("#").strip()
            comment = [text.removeprefix("-- ")] if text.startswith("-- ") else [*comment, text]
        elif match := _KEY.fullmatch(line):
            path[len(match[1]) // 2 :] = [match[2]]
            if comment:
                found[".".join(path)] = " ".join(comment)
            comment = []
        else:
            comment = []
    return found


def options() -> Mapping[str, str]:
    """Return the first sentence about each option of a destination in docs/receive-events.md, by path."""
    page = (ROOT / "docs" / "receive-events.md").read_text()
    found = {}
    for path, heading in _OPTION_TABLES.items():
        section = re.split(r"\n##+ ", page.partition(heading)[2])[0]
        for name, meaning in re.findall(r"^\| `(\w+)` \| .*? \| (.*) \|$", section, re.MULTILINE):
            plain = re.sub(r"\[(.*?)\]\(.*?\)", r"\1", meaning)
            found[f"{path}.{name}"] = re.split(r"(?<=\.) (?=[A-Z`])", plain)[0]
    return found


def properties(schema: Any, path: str = "") -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield each property of the schema with its path; `[]` stands for the items of a list."""
    for name, inner in schema.get("properties", {}).items():
        here = f"{path}.{name}" if path else name
        yield here, inner
        yield from properties(inner, here)
    if "items" in schema:
        yield from properties(schema["items"], f"{path}[]")
    for each in schema.get("oneOf", ()):
        yield from properties(each, path)


def schema_with_descriptions() -> str:
    """Return the schema, each of whose properties has a description."""
    schema = json.loads(SCHEMA.read_text())
    known = {**comments(), **options()}
    for path, inner in properties(schema):
        description = next((known[each] for each in _upwards(path) if each in known), None)
        if description:
            content = {name: value for name, value in inner.items() if name != "description"}
            inner.clear()
            inner.update({"description": description} | content)
    return json.dumps(schema, indent=2, ensure_ascii=False) + "\n"


def _upwards(path: str) -> Iterator[str]:
    """Yield a path and those of the values that contain it, the nearest first."""
    while path:
        yield path
        path = path[:-2] if path.endswith("[]") else path.rpartition(".")[0]


def table() -> str:
    """Return a row for each value, as helm-docs writes it."""
    rows = ["| Key | Type | Default | Description |", "|-----|------|---------|-------------|"]
    known, schema = comments(), dict(properties(json.loads(SCHEMA.read_text())))
    for path, value in _leaves(yaml.safe_load(VALUES.read_text()), known):
        kinds = schema[path].get("type", "string" if "enum" in schema[path] else _TYPES.get(type(value), "any"))
        kind = " or ".join(each for each in ([kinds] if isinstance(kinds, str) else kinds) if each != "null")
        default = json.dumps(value, ensure_ascii=False)
        meaning = known[path].replace("|", "&#124;").replace("<", "&lt;")
        rows.append(f"| {path} | {kind} | `{default}` | {meaning} |")
    return "\n".join(rows)


_TYPES: Final = {list: "array", dict: "object", str: "string", bool: "boolean", int: "integer", float: "number"}


def _leaves(values: Mapping[str, Any], known: Mapping[str, str], path: str = "") -> Iterator[tuple[str, Any]]:
    """Yield each value; a block whose lines have no comments of their own is one value."""
    for name, value in values.items():
        here = f"{path}.{name}" if path else name
        has_lines = isinstance(value, dict) and any(each.startswith(f"{here}.") for each in known)
        if has_lines:
            yield from _leaves(value, known, here)
        else:
            yield here, value
