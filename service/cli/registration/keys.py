"""The secrets of commands that ask Meta: from the credentials' files or the environment, never from an argument."""

from collections.abc import Mapping
from pathlib import Path
from typing import Final, NamedTuple

import click

from service.config import SECRETS
from service.credentials import content_of, values_in

_WHERE: Final = {
    "verify-token": "a word of your own, which Meta sends with its handshake",
    "app-secret": "App dashboard > App settings > Basic",
    "access-token": "business.facebook.com > Settings > System users > Generate token",
}


class Keys(NamedTuple):
    """Line 1 of each file, or the variable in its place; empty where there is none."""

    verify_token: bytes
    app_secret: bytes
    access_token: bytes

    def __repr__(self) -> str:
        return "Keys(...)"

    def require(self, *names: str) -> None:
        """Raise ClickException where one of these files' values is missing."""
        missing = [name for name in names if not getattr(self, name.replace("-", "_"))]
        if missing:
            variables = {file: variable for variable, file in SECRETS.items()}
            listed = "\n".join(f"  {name} (or {variables[name]}): {_WHERE[name]}" for name in missing)
            raise click.ClickException(f"This needs, as a file in the directory of --credentials:\n{listed}")


def read(directory: Path, environ: Mapping[str, str]) -> Keys:
    """Read them; raises ClickException where a value can't be one."""
    found = {}
    for file in SECRETS.values():
        values = given(file, environ) or _values(directory / file)
        value = values[0] if values else b""
        if not value.isascii() and file != "verify-token":
            raise click.ClickException(f"What is given as {file} holds characters that Meta's never do: look again.")
        found[file.replace("-", "_")] = value
    return Keys(**found)


def given(file: str, environ: Mapping[str, str]) -> tuple[bytes, ...]:
    """Give what the environment says in the place of a file; none where it says nothing."""
    variables = {name: variable for variable, name in SECRETS.items()}
    return values_in(environ.get(variables[file], "").encode())[:1]


def _values(file: Path) -> tuple[bytes, ...]:
    try:
        return values_in(content_of(file))
    except OSError:
        return ()
