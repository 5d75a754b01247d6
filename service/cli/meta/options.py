"""What the commands share that ask Meta: their options, the way there, and how what is registered is told."""

import functools
import os
import time
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, Final, NamedTuple
from urllib.parse import urlsplit
from urllib.request import getproxies, proxy_bypass

import click

from service.cli.console import console, wrapped
from service.cli.load_config import configured
from service.cli.meta import secrets_source
from service.config import SECRETS, Config, ids, public_url
from service.errors import GraphRefused
from service.meta.graph import client, registration, urls
from service.meta.graph.client import Graph
from service.meta.graph.plan_types import Plan, PlanStep


class Asked(NamedTuple):
    """The way to Meta, as one app, and what the command line or the configuration says."""

    graph: Graph
    keys: secrets_source.SecretsSource
    config: Config
    app: str
    accounts: tuple[str, ...]


def asking(command: Callable[..., None]) -> Callable[..., None]:
    """Give a command the options that all have, and the way to Meta as `asked`."""

    @functools.wraps(command)
    def with_options(app: str | None, account: tuple[str, ...], credentials: Path | None, **more: Any) -> None:
        command(asked=opened(app, account, credentials), **more)

    for option in reversed(_OPTIONS):
        with_options = option(with_options)
    return with_options


def opened(app: str | None, accounts: Sequence[str], credentials: Path | None) -> Asked:
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
    return Asked(_of_the_app(graphs), found, config, app, tuple(dict.fromkeys(accounts)) or config.accounts)


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


def tell(steps: Iterable[PlanStep]) -> None:
    """Say what is there now, and what will be."""
    screen = console()
    for step in steps:
        click.echo(step.what)
        for word, there in (("now", step.now), ("then", step.then)):
            click.echo(wrapped(f"  {word:<6}{there}", screen, 8))


def carry_out(graph: Graph, first: Callable[[], Plan], after: Callable[[], Plan], *, dry_run: bool, yes: bool) -> None:
    """Show the steps of a *first* plan, ask, take them, and plan what is left *after* it: whether Meta has it so now.

    Raises Refused where nothing may be changed, or where it was changed by somebody else meanwhile.
    """
    plan = _permitted(first(), "Nothing was changed.")
    tell(plan.steps)
    for note in plan.notes:
        click.echo(f"note: {note}")
    if not plan.steps:
        click.echo("Nothing to change: at Meta it is so already.")
        return
    if dry_run:
        click.echo("Nothing was changed: this was --dry-run.")
        return
    if not yes:
        if not click.confirm("Change this at Meta?"):
            click.echo("Nothing was changed.", err=True)
            raise SystemExit(1)
        if first() != plan:
            raise PlanRefused(
                "Nothing was changed: somebody else changed something at Meta meanwhile. Look at it again."
            )
    take(graph, plan.steps)
    # Whether fields that are not named are dropped, Meta does not say. Nothing else is done that was not shown.
    take(graph, (step for step in _permitted(after(), "Nothing more was changed.").steps if step.trims))
    left = _permitted(after(), "Nothing more was changed.").steps
    if left:
        tell(left)
        raise click.ClickException(
            "Meta took every request, and it is not so: the above is left. Has somebody else changed it just now? "
            "Look at it again in a minute."
        )
    click.echo("Done, and at Meta it is so now.")


def _permitted(plan: Plan, otherwise: str) -> Plan:
    if plan.refusals:
        raise PlanRefused("\n".join((otherwise, *plan.refusals)))
    return plan


def take(graph: Graph, steps: Iterable[PlanStep]) -> None:
    """Take steps in order; raises GraphRefused, having said which one it was."""
    for step in steps:
        what = step.what
        try:
            graph.ask(step.method, step.path, step.parameters, as_app=step.as_app)
        except GraphRefused:
            click.echo(f"{what}: not changed, nor anything after it.", err=True)
            raise
        click.echo(f"{what}: done")


class PlanRefused(click.ClickException):
    """Nothing was changed, and nothing will be until something else is said: trying again does not help."""

    exit_code = 2


class Ids(click.ParamType[str]):
    """An id of Meta's: digits."""

    name = "id"

    def convert(self, value: str, param: click.Parameter | None, ctx: click.Context | None) -> str:
        """Read it."""
        try:
            (found,) = ids(value)
        except ValueError:
            self.fail(f"{value!r} is no id: digits alone, as Meta's dashboard shows it.", param, ctx)
        return found


ID: Final = Ids()
_OPTIONS: Final = (
    click.option("--app", type=ID, help="The app, if not the one of WEBHOOK_APP_ID."),
    click.option(
        "--account",
        type=ID,
        multiple=True,
        help="A WhatsApp Business account, if not those of WEBHOOK_ACCOUNTS; may repeat.",
    ),
    click.option(
        "--credentials",
        metavar="DIRECTORY",
        type=click.Path(path_type=Path),
        help="Where app-secret, verify-token and access-token are, if not in WEBHOOK_CREDENTIALS_DIR.",
    ),
)


def numbers_option(meaning: str) -> Callable[[Any], Any]:
    """Give a command the option that names numbers, one by one, beside those of the accounts."""
    return click.option("--number", "numbers", type=ID, multiple=True, help=meaning)
