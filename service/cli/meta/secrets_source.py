"""The secrets of commands that call Meta: from the credentials files or the environment, never from an argument."""

from collections.abc import Mapping
from pathlib import Path
from typing import Final, NamedTuple

import click

from service.config import SECRETS
from service.credentials import (
    ACCESS_TOKEN,
    APP_SECRET,
    VERIFY_TOKEN,
    UnusableFile,
    is_app_secret,
    parse_values,
    read_app_secrets,
    read_values,
)

_WHERE: Final = {
    "verify-token": "any text that you choose; Meta sends it in its handshake",
    "app-secret": "App dashboard > App settings > Basic",
    "access-token": "business.facebook.com > Settings > System users > Generate token",
}


class SecretsSource(NamedTuple):
    """Line 1 of each file, or the variable that replaces the file, or empty; of app secrets every line."""

    verify_token: bytes
    app_secrets: tuple[bytes, ...]
    access_token: bytes

    @property
    def app_secret(self) -> bytes:
        """Return line 1."""
        return self.app_secrets[0] if self.app_secrets else b""

    def __repr__(self) -> str:
        return "SecretsSource(...)"

    def require(self, *names: str) -> None:
        """Raise ClickException if a value of these files is missing."""
        missing = [name for name in names if not getattr(self, name.replace("-", "_"))]
        if missing:
            variables = {file: variable for variable, file in SECRETS.items()}
            listed = "\n".join(f"  {name} (or {variables[name]}): {_WHERE[name]}" for name in missing)
            raise click.ClickException(
                f"Missing credentials. Put each into a file in the directory of --credentials:\n{listed}"
            )


def access_token(directory: Path, environ: Mapping[str, str]) -> bytes:
    """Return the access token, b"" if there is none; raises ClickException if the value is not valid."""
    return _first(given(ACCESS_TOKEN, environ) or _values(directory, ACCESS_TOKEN))


def read(directory: Path, environ: Mapping[str, str]) -> SecretsSource:
    """Return the secrets; raises ClickException if a value is not valid."""
    values_of = {file: given(file, environ) or _values(directory, file) for file in SECRETS.values()}
    for file, values in values_of.items():
        if file != VERIFY_TOKEN and not all(each.isascii() for each in values):
            raise click.ClickException(
                f"The value of {file} contains characters that Meta's never contain. Copy it from Meta again."
            )
    return SecretsSource(_first(values_of[VERIFY_TOKEN]), values_of[APP_SECRET], _first(values_of[ACCESS_TOKEN]))


def _first(values: tuple[bytes, ...]) -> bytes:
    return values[0] if values else b""


def given(file: str, environ: Mapping[str, str]) -> tuple[bytes, ...]:
    """Return the value of the environment variable that replaces a file, if it is set; raises ClickException."""
    variable = next(name for name, replaced in SECRETS.items() if replaced == file)
    try:
        values = parse_values(environ.get(variable, "").encode(errors="surrogateescape"))[:1]
    except ValueError as ex:
        raise click.ClickException(f"{variable} {ex}.") from ex
    if file == APP_SECRET and not all(map(is_app_secret, values)):
        raise click.ClickException(f"{variable} is not an app secret: Meta's has 32 hex digits.")
    return values


def _values(directory: Path, file: str) -> tuple[bytes, ...]:
    """Return the values of a file, none if it is missing or empty; raises ClickException if it is not valid."""
    try:
        return read_app_secrets(directory) if file == APP_SECRET else read_values(directory / file)
    except UnusableFile as ex:
        if ex.is_empty:
            return ()
        raise click.ClickException(f"{ex}.") from ex
