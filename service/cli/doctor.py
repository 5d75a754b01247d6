"""`doctor`: why nothing arrives."""

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import click
from rich.text import Text

from service.cli import explain_signature
from service.cli.console import console, wrapped
from service.cli.meta import options, secrets_source
from service.cli.shared_options import account_option, app_option, credentials_option, json_option
from service.config import INBOX_FILE, Config, public_url
from service.credentials import APP_SECRET, VERIFY_TOKEN, Credentials, CredentialsDirectory
from service.doctor import Circumstances, Finding, FindingState, diagnose
from service.errors import ConfigurationError
from service.meta.graph import client
from service.meta.graph.client import Graph
from service.outcomes import CheckId

_COLOURS: Final = {FindingState.OK: "green", FindingState.WRONG: "red", FindingState.UNKNOWN: "yellow"}
_STATE: Final = 9
_WIDTH: Final = 15
_CORRECT: Final = "Correct it in the environment; in a cluster, in the chart's values, extraEnv among them."
GRAPH_CHECK_TIMEOUT_SECONDS: Final = (
    8.0  # seconds for a try of the Graph API: nothing that is asked here waits for a handshake
)


def _url(_ctx: click.Context, _param: click.Parameter, value: str | None) -> str | None:
    try:
        return public_url(value or "")
    except ValueError as ex:
        raise click.BadParameter(f"it {ex}.") from ex


@click.command(short_help="Find out why no events arrive, or why a signature is refused.")
@click.option(
    "--url",
    metavar="URL",
    callback=_url,
    help="What Meta calls, if not WEBHOOK_CALLBACK_URL, or what is registered at Meta.",
)
@app_option
@account_option
@credentials_option
@json_option
@explain_signature.options
def doctor(
    url: str | None,
    app: str | None,
    account: tuple[str, ...],
    credentials: Path | None,
    *,
    as_json: bool,
    request: explain_signature.CaughtRequest | None,
) -> None:
    """Say why nothing arrives: each look ok, wrong or unknown, and what to do.

    In the service's pod it looks at configuration, credentials, the service itself and its inbox; with --url, from
    anywhere, at the way that Meta's requests take, and with --app and an access token at what is registered at Meta.
    What it can't see from where it is, is unknown, with how it can be seen.

    It sends a signed test notification, one that must be refused, and 3 MB of blanks in another one: what it leaves in
    the inbox is marked as a test, which destinations skip.

    With --signature it says instead why a notification's signature was refused: FILE is the request as it came, head
    and body, or its body alone with --header. Nothing of it is sent anywhere.

    \b
    whatsapp-webhook doctor
    whatsapp-webhook doctor --url https://wa.example.com/webhooks --app 188559381496048 --account 102290129340398
    whatsapp-webhook doctor --signature request.txt --candidate other-app-secret
    """  # noqa: D301  click wants the character
    try:
        config = options.asking_config()
    except ConfigurationError as ex:
        _end([Finding.wrong(CheckId.CONFIGURATION, problem, _CORRECT) for problem in ex.problems], as_json=as_json)
        return
    if request:
        explain_signature.explain(request, credentials or config.credentials_dir, as_json=as_json)
        return
    about = _circumstances(config, credentials, url, app, account)
    found: list[Finding] = []
    for finding in diagnose(about):
        found.append(finding)
        if not as_json:
            _tell(finding)
    _end(found, as_json=as_json, told=True)


def _circumstances(
    config: Config, named: Path | None, url: str | None, app: str | None, accounts: tuple[str, ...]
) -> Circumstances:
    path = named or config.credentials_dir
    directory = CredentialsDirectory(path, hint=config.credentials_hint)
    directory.look()
    given = {name: secrets_source.given(name, os.environ) for name in (VERIFY_TOKEN, APP_SECRET)}
    found = Credentials(
        given[VERIFY_TOKEN] or directory.current.verify_tokens, given[APP_SECRET] or directory.current.app_secrets
    )
    chosen = app or config.app_id
    return Circumstances(
        config=config,
        credentials=found,
        problems=tuple(
            problem
            for problem in directory.problems
            if not any(values and str(path / name) in problem for name, values in given.items())
        ),
        remedy=config.credentials_hint or f"Put them into {path}, or name another directory with --credentials.",
        directory=str(named) if named else None,
        url=url or config.callback_url,
        graphs=tuple(
            _graph(config, chosen, path, secret) for secret in found.app_secrets if chosen and secret.isascii()
        ),
        accounts=tuple(dict.fromkeys(accounts)) or config.accounts,
        is_meant_here=any(os.environ.get(name) for name in ("WEBHOOK_INBOX", INBOX_FILE, "WEBHOOK_BIND")),
        in_cluster="KUBERNETES_SERVICE_HOST" in os.environ,
    )


def _graph(config: Config, app: str, path: Path, secret: bytes) -> Graph:
    try:
        token = secrets_source.access_token(path, os.environ)
    except click.ClickException:
        token = b""
    return options.graph_of(config, client.AppCredentials(app, secret, token), timeout=GRAPH_CHECK_TIMEOUT_SECONDS)


def _tell(finding: Finding) -> None:
    screen, indent = console(), _STATE + _WIDTH
    text = f"{finding.state:<{_STATE}}{finding.check:<{_WIDTH}}{finding.detail}"
    line = Text(wrapped(text, screen, indent))
    line.stylize(_COLOURS[finding.state], 0, _STATE)
    line.stylize("bold", _STATE, indent)
    screen.print(line, soft_wrap=True)
    if finding.state is not FindingState.OK:
        # Not broken, since a command may be in it, to be copied.
        remedy = f"-> {finding.remedy}"
        screen.print(" " * (indent if indent + len(remedy) <= screen.width else 3) + remedy, soft_wrap=True)


def _end(found: list[Finding], *, as_json: bool, told: bool = False) -> None:
    cause = next((finding for finding in found if finding.state is FindingState.WRONG), None)
    if as_json:
        document = {
            "ok": cause is None,
            "cause": _document(cause) if cause else None,
            "findings": [_document(finding) for finding in found],
        }
        click.echo(json.dumps(document, indent=2))
    else:
        for finding in () if told else found:
            _tell(finding)
        for line in _sum(found, cause):
            click.echo(line)
    raise SystemExit(1 if cause else 0)


def _document(finding: Finding) -> dict[str, str]:
    return finding._asdict() | {"docs": finding.docs}


def _sum(found: list[Finding], cause: Finding | None) -> Iterator[str]:
    yield ""
    if cause:
        more = sum(finding.state is FindingState.WRONG for finding in found) - 1
        yield f"Start here: {cause.check}: {cause.detail}"
        yield f"-> {cause.remedy}"
        yield f"More about this check: {cause.docs}"
        if more:
            yield f"{more} more may be wrong for the same reason, or come next: run this again once that is mended."
        return
    unknown = list(dict.fromkeys(finding.check for finding in found if finding.state is FindingState.UNKNOWN))
    yield "Nothing is wrong that can be seen from here." + (f" Not seen: {', '.join(unknown)}." if unknown else "")
