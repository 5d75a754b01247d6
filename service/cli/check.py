"""`check`: validate the configuration."""

import os
from pathlib import Path

import click

from service.cli.load_config import configured
from service.credentials import CredentialsDirectory, weak_verify_tokens
from service.errors import ConfigurationError
from service.foreign_environment import Ignored
from service.meta import webhook_fields
from service.relay.destination_registry import DestinationRegistry
from service.storage import engines
from service.telemetry import tracing


@click.command(short_help="Check the configuration and report every problem.")
@click.pass_obj
def check(ignored: Ignored) -> None:
    """Check the whole configuration without starting anything, and report every problem.

    Exits with status 2 if there is a problem. These are problems: whatever stops `serve` or `relay` from starting; a
    destinations file, or a file that it names, that is missing or invalid; a wrong setting `OTEL_*`, with which the
    service starts without traces. Missing credentials are only a note, since `serve` starts and waits for them. The
    inbox is not opened: `ready` checks it.

    \b
    WEBHOOK_RETENTION=8d whatsapp-webhook check
    """  # noqa: D301  click requires the character
    problems = [*tracing.problems(os.environ), *ignored.problems()]  # `serve` only logs these, and starts
    try:
        config = configured(os.environ)
    except ConfigurationError as ex:
        raise ConfigurationError([*ex.problems, *problems]) from ex
    if problems:
        raise ConfigurationError(problems)
    for name in sorted(config.fields - set(webhook_fields.FIELDS)):
        click.echo(f"note: WEBHOOK_FIELDS names {name!r}, which this version does not know. It is used as written.")
    directory = CredentialsDirectory(config.credentials_dir, hint=config.credentials_hint)
    directory.look()
    if directory.missing:
        click.echo(f"note: the service is not ready until the credentials exist: {directory.missing}")
    for weakness in weak_verify_tokens(directory.current.verify_tokens):
        click.echo(f"warning: {weakness} Create one with `openssl rand -hex 16`, and enter the same one at Meta.")
    if config.destinations:
        registry = DestinationRegistry(Path(config.destinations))
        registry.look()
        if registry.problems:
            raise ConfigurationError(registry.problems)
        for warning in registry.current.warnings:
            click.echo(f"warning: {warning}")
    for note in engines.load(config.inbox).notes(config.inbox):
        click.echo(f"note: {note}")
    fields = ", ".join(sorted(config.fields)) or "all"
    click.echo(f"The configuration is valid. Inbox: {config.inbox.engine}; fields: {fields}.")
