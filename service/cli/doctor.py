"""`doctor`: find out why no events arrive."""

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
_STATE_COLUMNS: Final = 9
_CHECK_COLUMNS: Final = 15
_CORRECT: Final = "Correct it in the environment; in a cluster, in the chart's values (such as extraEnv)."
GRAPH_CHECK_TIMEOUT_SECONDS: Final = 8.0  # per attempt; no request of the doctor waits for a handshake


def _url(_ctx: click.Context, _param: click.Parameter, value: str | None) -> str | None:
    try:
        return public_url(value or "")
    except ValueError as ex:
        raise click.BadParameter(f"it {ex}.") from ex


@click.command(short_help="Find out why no events arrive or a signature is wrong.")
@click.option(
    "--url",
    metavar="URL",
    callback=_url,
    help="The callback URL to check. Default: WEBHOOK_CALLBACK_URL, or the URL registered at Meta.",
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
    """Find out why no events arrive. Prints each check as ok, wrong or unknown, with what to do.

    In the service's pod or machine it checks the configuration, the credentials, the service and its inbox. If a
    callback URL is known (see --url), it also checks, from anywhere, the path that Meta's requests take. With --app and
    an access token it also checks what is registered at Meta. A check that is impossible from here is unknown, with
    where to run it. Exits with status 1 if something is wrong.

    It sends test notifications to the service: one that is signed, one that must be rejected, and one that is padded
    with blanks to 3 MB. The events that they store are marked as tests: only
    destinations with `tests: true` get them.

    With --signature it explains instead why the signature of a notification was rejected. FILE contains the captured
    request with its head, or only the body together with --header. Nothing is sent anywhere.

    \b
    whatsapp-webhook doctor
    whatsapp-webhook doctor --url https://wa.example.com/webhooks \\
      --app 188559381496048 --account 102290129340398
    whatsapp-webhook doctor --signature request.txt \\
      --candidate ./other-app-secret.txt
    """  # noqa: D301  click requires the character
    try:
        config = options.asking_config()
    except ConfigurationError as ex:
        _finish([Finding.wrong(CheckId.CONFIGURATION, problem, _CORRECT) for problem in ex.problems], as_json=as_json)
        return
    if request:
        explain_signature.explain(request, credentials or config.credentials_dir, as_json=as_json)
        return
    circumstances = _circumstances(config, credentials, url, app, account)
    findings: list[Finding] = []
    for finding in diagnose(circumstances):
        findings.append(finding)
        if not as_json:
            _print_finding(finding)
    _finish(findings, as_json=as_json, printed=True)


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
        remedy=config.credentials_hint or f"Put them into {path}, or set another directory with --credentials.",
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


def _print_finding(finding: Finding) -> None:
    screen, indent = console(), _STATE_COLUMNS + _CHECK_COLUMNS
    text = f"{finding.state:<{_STATE_COLUMNS}}{finding.check:<{_CHECK_COLUMNS}}{finding.detail}"
    line = Text(wrapped(text, screen, indent))
    line.stylize(_COLOURS[finding.state], 0, _STATE_COLUMNS)
    line.stylize("bold", _STATE_COLUMNS, indent)
    screen.print(line, soft_wrap=True)
    if finding.state is not FindingState.OK:
        # Not wrapped, since it may contain a command to copy.
        remedy = f"-> {finding.remedy}"
        screen.print(" " * (indent if indent + len(remedy) <= screen.width else 3) + remedy, soft_wrap=True)


def _finish(found: list[Finding], *, as_json: bool, printed: bool = False) -> None:
    cause = next((finding for finding in found if finding.state is FindingState.WRONG), None)
    if as_json:
        document = {
            "ok": cause is None,
            "cause": _document(cause) if cause else None,
            "findings": [_document(finding) for finding in found],
        }
        click.echo(json.dumps(document, indent=2))
    else:
        for finding in () if printed else found:
            _print_finding(finding)
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
            yield f"{more} more are wrong, perhaps for the same reason: fix this one, and run this command again."
        return
    unknown = list(dict.fromkeys(finding.check for finding in found if finding.state is FindingState.UNKNOWN))
    yield "No problem was found from here." + (f" Not checked: {', '.join(unknown)}." if unknown else "")
