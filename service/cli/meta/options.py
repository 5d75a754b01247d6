"""What the commands that ask Meta share: their options, and the way there."""

import os
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import urlsplit
from urllib.request import getproxies, proxy_bypass

import click

from service.cli.load_config import configured
from service.cli.meta import secrets_source
from service.cli.shared_options import META_ID, account_option, app_option, credentials_option, option_group
from service.config import SECRETS, Config, public_url
from service.errors import GraphRefused
from service.meta.graph import client, registration, urls
from service.meta.graph.client import Graph


class Asked(NamedTuple):
    """The way to Meta, as one app, and what the command line or the configuration says."""

    graph: Graph
    keys: secrets_source.SecretsSource
    config: Config
    app: str
    accounts: tuple[str, ...]


def opened(app: str | None, account: Sequence[str], credentials: Path | None) -> Asked:
    """Read configuration and secrets; raises ClickException where the app is not named or its secret is missing.

    Whether an access token is there, is for the commands to require: not all ask of accounts first.
    """
    config = asking_config()
    found = secrets_source.read(credentials or config.credentials_dir, os.environ)
    app = app or config.app_id
    if not app:
        raise click.UsageError("Which app? Name its id with --app or in WEBHOOK_APP_ID: App dashboard > App settings.")
    found.require("app-secret")
    graphs = [graph_of(config, client.AppCredentials(app, secret, found.access_token)) for secret in found.app_secrets]
    return Asked(_of_the_app(graphs), found, config, app, tuple(dict.fromkeys(account)) or config.accounts)


def graph_of(config: Config, its: client.AppCredentials, *, timeout: float = client.GRAPH_TIMEOUT_SECONDS) -> Graph:
    """Make the way to the Graph API, by the environment's HTTPS_PROXY where NO_PROXY does not say otherwise."""
    host = urlsplit(config.graph_url).hostname or ""
    proxy = "" if proxy_bypass(host) else getproxies().get("https", "")
    return Graph(config.graph_url, config.graph_version, its, sleep=time.sleep, timeout=timeout, proxy=proxy)


def _of_the_app(graphs: Sequence[Graph]) -> Graph:
    """Give the first whose secret Meta takes as the app's: while it is rotated, several are in force."""
    for graph in graphs[:-1]:
        try:
            registration.app(graph)
        except GraphRefused as ex:
            if ex.code:  # it may be the secret
                continue
        return graph
    return graphs[-1]


def asking_config() -> Config:
    """Read the configuration as a command may that takes secrets from the environment too."""
    return configured({name: text for name, text in os.environ.items() if name not in SECRETS})


def url_of(given: str | None, config: Config, *, longest: int | None = None) -> str:
    """Give the callback URL; raises UsageError where there is none, or none that Meta would call."""
    url = given or config.callback_url
    if not url:
        raise click.UsageError("Which URL? Give it as an argument, or in WEBHOOK_CALLBACK_URL: https://host/webhooks")
    try:
        problem = urls.why_not_called(public_url(url))
    except ValueError as ex:
        raise click.BadParameter(f"it {ex}.", param_hint="URL") from ex
    if problem:
        raise click.BadParameter(f"{problem} (it is {url})", param_hint="URL")
    if longest and len(url) > longest:
        raise click.BadParameter(f"it is {len(url)} characters long, and Meta takes {longest} here.", param_hint="URL")
    return url


def numbers_option(meaning: str) -> Callable[[Any], Any]:
    """Give a command the option that names numbers, one by one, beside those of the accounts."""
    return click.option("--number", "numbers", type=META_ID, multiple=True, help=meaning)


asking = option_group("asked", opened, (app_option, account_option, credentials_option))
