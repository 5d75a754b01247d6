"""What the commands that call Meta's Graph API share: their options and the client."""

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
    """The Graph API client of one app, and the values of the command line or the configuration."""

    graph: Graph
    keys: secrets_source.SecretsSource
    config: Config
    app: str
    accounts: tuple[str, ...]


def opened(app: str | None, account: Sequence[str], credentials: Path | None) -> Asked:
    """Read configuration and secrets; raises ClickException if the app id or the app secret is missing.

    An access token is not required here: each command requires it before it calls the API for an account.
    """
    config = asking_config()
    secrets = secrets_source.read(credentials or config.credentials_dir, os.environ)
    app = app or config.app_id
    if not app:
        raise click.UsageError(
            "Which app? Set its id with --app or in WEBHOOK_APP_ID. Meta shows it in App dashboard > App settings."
        )
    secrets.require("app-secret")
    graphs = [
        graph_of(config, client.AppCredentials(app, secret, secrets.access_token)) for secret in secrets.app_secrets
    ]
    return Asked(_of_the_app(graphs), secrets, config, app, tuple(dict.fromkeys(account)) or config.accounts)


def graph_of(config: Config, app: client.AppCredentials, *, timeout: float = client.GRAPH_TIMEOUT_SECONDS) -> Graph:
    """Return a client of the Graph API, which uses the proxy of HTTPS_PROXY unless NO_PROXY excludes the host."""
    host = urlsplit(config.graph_url).hostname or ""
    proxy = "" if proxy_bypass(host) else getproxies().get("https", "")
    return Graph(config.graph_url, config.graph_version, app, sleep=time.sleep, timeout=timeout, proxy=proxy)


def _of_the_app(graphs: Sequence[Graph]) -> Graph:
    """Return the first whose app secret Meta accepts; during a rotation there are several."""
    for graph in graphs[:-1]:
        try:
            registration.app(graph)
        except GraphRefused as ex:
            if ex.code:  # the secret may be wrong
                continue
        return graph
    return graphs[-1]


def asking_config() -> Config:
    """Return the configuration for a command that also reads secrets from the environment."""
    return configured({name: text for name, text in os.environ.items() if name not in SECRETS})


def url_of(argument: str | None, config: Config, *, max_characters: int | None = None) -> str:
    """Return the callback URL; raises UsageError if there is none, or if Meta would not call it."""
    url = argument or config.callback_url
    if not url:
        raise click.UsageError(
            "Which URL? Give it as an argument or in WEBHOOK_CALLBACK_URL, such as https://wa.example.com/webhooks."
        )
    try:
        problem = urls.why_not_called(public_url(url))
    except ValueError as ex:
        raise click.BadParameter(f"it {ex}.", param_hint="URL") from ex
    if problem:
        raise click.BadParameter(f"{problem} (it is {url})", param_hint="URL")
    if max_characters and len(url) > max_characters:
        raise click.BadParameter(
            f"it is {len(url)} characters long, and Meta accepts {max_characters} for an override.", param_hint="URL"
        )
    return url


def numbers_option(help_text: str) -> Callable[[Any], Any]:
    """Return the option that names phone number ids in addition to those of the accounts."""
    return click.option("--number", "numbers", type=META_ID, multiple=True, help=help_text)


asking = option_group("asked", opened, (app_option, account_option, credentials_option))
