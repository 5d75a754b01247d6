"""`check`: is the configuration good?"""

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


@click.command(short_help="Check the whole configuration, every problem at once.")
@click.pass_obj
def check(ignored: Ignored) -> None:
    """Look at the whole configuration and say everything that is wrong with it, at once.

    It is wrong if `serve` would refuse to start, or would start without the traces that `OTEL_*` asks for.
    Missing credentials are not wrong: `serve` waits for them.
    """
    problems = [
        *tracing.problems(os.environ),
        *ignored.problems(),
    ]  # `serve` starts without traces then, which nobody wants to find out late
    try:
        config = configured(os.environ)
    except ConfigurationError as ex:
        raise ConfigurationError([*ex.problems, *problems]) from ex
    if problems:
        raise ConfigurationError(problems)
    for name in sorted(config.fields - set(webhook_fields.FIELDS)):
        click.echo(f"note: WEBHOOK_FIELDS names {name!r}, which this version does not know; it is taken as it is.")
    directory = CredentialsDirectory(config.credentials_dir, hint=config.credentials_hint)
    directory.look()
    if directory.missing:
        click.echo(f"note: not ready until credentials are there: {directory.missing}")
    for weakness in weak_verify_tokens(directory.current.verify_tokens):
        click.echo(f"warning: {weakness} Make one with `openssl rand -hex 16`, and enter the same at Meta.")
    if config.destinations:
        registry = DestinationRegistry(Path(config.destinations))
        registry.look()
        if registry.problems:
            raise ConfigurationError(registry.problems)
        for warning in registry.current.warnings:
            click.echo(f"warning: {warning}")
    for note in engines.load(config.inbox).notes(config.inbox):
        click.echo(f"note: {note}")
    chosen = ", ".join(sorted(config.fields)) or "all"
    click.echo(f"The configuration is good. Inbox: {config.inbox.engine}; fields: {chosen}.")
