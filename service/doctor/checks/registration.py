"""The registration at Meta, and why it would prevent notifications from arriving."""

import datetime as dt
import shlex
from collections.abc import Iterator, Sequence
from typing import Final, NamedTuple

from service.doctor.finding import Finding, FindingState
from service.errors import GraphRefused
from service.meta import webhook_fields
from service.meta.graph import registration, versions
from service.meta.graph.client import Graph
from service.meta.graph.errors import RATE_LIMIT_CODES
from service.meta.graph.registration import Account, App
from service.meta.graph.urls import same, why_not_called
from service.outcomes import CheckId

SUGGESTED_FIELDS: Final = (webhook_fields.MESSAGES_FIELD, "account_update")


class OverridesHere(NamedTuple):
    """The accounts and numbers whose override sends here, whether any was checked, and whether a real event arrived."""

    names: Sequence[str]
    are_checked: bool
    is_real: bool


class RegistrationResult(NamedTuple):
    """The findings; *position* is the line of the app secret that is the app's, 0 if none is known to be."""

    findings: list[Finding]
    callback_url: str = ""
    position: int = 0
    is_reached: bool = True


def check(
    graphs: Sequence[Graph],
    url: str,
    fields: frozenset[str],
    accounts: Sequence[str],
    real_event: str | None,
    *,
    directory: str | None,
    today: dt.date,
) -> RegistrationResult:
    """Check the app, its subscription and its accounts.

    *graphs* has one for each accepted app secret: the first that Meta accepts as the app's is used. *real_event* is a
    sentence about an event that only a live app sends. *directory* is where the credentials are, if the commands of a
    remedy need it as an option. *today* decides whether the version of the Graph API ends soon.
    """
    position, app = _open(graphs)
    if isinstance(app, GraphRefused):
        return RegistrationResult([_refused(CheckId.APP, app)], is_reached=bool(app.code))
    matching = "The app secret matches." if len(graphs) == 1 else f"Line {position} of the app secrets matches."
    app_finding = Finding.ok(CheckId.APP, f"App {app.id} ({app.name}). {matching}")
    registered_url = app.subscription.callback_url if app.subscription else ""
    wanted = url or registered_url
    command = _subscribe(app.id, wanted, directory)
    read_accounts: list[Account] = []
    of_accounts = list(_accounts(graphs[position - 1], accounts, wanted, command, read_accounts))
    names = [
        what for account in read_accounts for what, target in _overrides_of(account) if target and same(target, wanted)
    ]
    here = OverridesHere(names, are_checked=bool(read_accounts), is_real=real_event is not None)
    if not app.subscription:
        listed = ",".join(sorted(fields or SUGGESTED_FIELDS))
        command = f"{command}{''.join(f' --account {each}' for each in accounts)} --fields {listed}"
    of_app = [
        app_finding,
        _version(graphs[position - 1], today),
        _live(app, real_event),
        *_subscription(app, wanted, fields, here, command),
    ]
    return RegistrationResult(of_app + of_accounts, registered_url, position)


def _version(graph: Graph, today: dt.date) -> Finding:
    if warning := versions.warning(graph.version, graph.answered_version, today):
        remedy = "Set WEBHOOK_GRAPH_VERSION to a newer version, or remove it to use the default of this release."
        return Finding.unknown(CheckId.GRAPH_VERSION, warning, remedy)
    return Finding.ok(CheckId.GRAPH_VERSION, f"Version {graph.version} of the Graph API.")


def _open(graphs: Sequence[Graph]) -> tuple[int, App | GraphRefused]:
    """Return which secret is the app's, and the app; or 0, and Meta's refusal of the first secret."""
    refused: list[GraphRefused] = []
    for position, graph in enumerate(graphs, start=1):
        try:
            return position, registration.app(graph)
        except GraphRefused as ex:
            refused.append(ex)
            if not ex.code:  # the secret is not the reason
                break
    return 0, refused[0]


def _accounts(
    graph: Graph, accounts: Sequence[str], url: str, command: str, read_accounts: list[Account]
) -> Iterator[Finding]:
    if not graph.keys.access_token:
        where = "business.facebook.com > Settings > System users > Generate token"
        yield Finding.unknown(
            CheckId.ACCOUNTS,
            "Without an access token, the accounts can't be checked.",
            f"Put an access token into the file access-token: {where}.",
        )
    elif not accounts:
        yield Finding.unknown(
            CheckId.ACCOUNTS, "No account was given.", "Name your accounts with --account, or in WEBHOOK_ACCOUNTS."
        )
    else:
        for account in accounts:
            yield from _account(graph, account, url, f"{command} --account {account}", read_accounts)


def _live(app: App, real_event: str | None) -> Finding:
    if real_event:
        return Finding.ok(CheckId.APP_LIVE, f"The app is live: {real_event}")
    where = "App dashboard > Publish. In development mode, an app receives only what the Test button sends."
    if not app.has_policy:
        return Finding.wrong(
            CheckId.APP_LIVE,
            "The app is in development mode: it has no privacy policy, which Meta requires of a live app.",
            f"Set App settings > Basic > Privacy policy URL; then {where}",
        )
    return Finding.unknown(CheckId.APP_LIVE, "The Graph API does not report whether the app is live.", f"Check {where}")


def _subscription(app: App, url: str, fields: frozenset[str], here: OverridesHere, command: str) -> Iterator[Finding]:
    """Check whether the app sends to *url*, by its own subscription or by an override."""
    current = app.subscription
    if current is None:
        yield Finding.wrong(CheckId.CALLBACK, "The app has no callback URL for WhatsApp: Meta sends nothing.", command)
        return
    is_own = same(current.callback_url, url)
    if not is_own and not here.names:
        yield _other_callback(current.callback_url, url, here, command)
    elif not current.active:
        remedy = (
            f"{command} --force" if is_own else "The owner of that URL must run `whatsapp-webhook subscribe --force`."
        )
        yield Finding.wrong(CheckId.CALLBACK, "Meta has disabled the app's subscription.", remedy)
    elif is_own:
        yield Finding.ok(CheckId.CALLBACK, f"The app sends to {current.callback_url}.")
    else:
        what = f"The app's own URL is {current.callback_url}; an override sends here the events of "
        yield Finding.ok(CheckId.CALLBACK, f"{what}{', '.join(here.names)}.")
    missing = (fields or {webhook_fields.MESSAGES_FIELD}) - set(current.fields)
    if missing:
        yield Finding.wrong(
            CheckId.FIELDS,
            f"The app is not subscribed to the webhook fields {', '.join(sorted(missing))}.",
            f"{command} --fields {','.join(sorted(set(current.fields) | missing))}",
        )
    else:
        yield Finding.ok(CheckId.FIELDS, f"The app is subscribed to {', '.join(current.fields)}.")


def _other_callback(registered_url: str, url: str, here: OverridesHere, command: str) -> Finding:
    if why_not_called(url):
        what = f"The app sends to {registered_url}; Meta would not call {url}."
        return Finding.wrong(
            CheckId.CALLBACK, what, "If the registered URL is the right one, run the doctor with --url and that URL."
        )
    what = f"The app sends to {registered_url}, not to {url}."
    remedy = (
        "An app sends to one URL. If that one is in use, create an app of your own, or set an override for an account "
        f"or a number. To replace that URL: {command} --replace"
    )
    if here.are_checked:
        return Finding.wrong(CheckId.CALLBACK, what, remedy)
    what += " Overrides were not checked: that needs the accounts and an access token."
    # An event that arrived suggests that there is an override.
    return (
        Finding.unknown(CheckId.CALLBACK, what, remedy)
        if here.is_real
        else Finding.wrong(CheckId.CALLBACK, what, remedy)
    )


def _account(graph: Graph, account_id: str, url: str, command: str, read_accounts: list[Account]) -> Iterator[Finding]:
    try:
        account = registration.account(graph, account_id)
    except GraphRefused as ex:
        yield _refused(CheckId.ACCOUNTS, ex)
        return
    read_accounts.append(account)
    if not account.is_subscribed:
        what = f"The app is not subscribed to account {account_id} ({account.name}): Meta sends none of its events."
        yield Finding.wrong(CheckId.ACCOUNTS, what, command)
        return
    yield Finding.ok(CheckId.ACCOUNTS, f"The app is subscribed to account {account_id} ({account.name}).")
    yield _overrides(account, url, f"If they should be sent here: {command} --drop-overrides")


def _overrides(account: Account, url: str, remedy: str) -> Finding:
    """Check for overrides to other URLs: wrong if none of the account's events are sent here, else unknown."""
    elsewhere = {what: target for what, target in _overrides_of(account) if target and url and not same(target, url)}
    if not elsewhere:
        return Finding.ok(CheckId.OVERRIDES, "No override sends events to another URL.")
    listed = "; ".join(f"those of {what} to {target}" for what, target in elsewhere.items())
    effective = [number.override or account.override for number in account.numbers] or [account.override]
    if any(not target or same(target, url) for target in effective):
        what = f"Some overrides send events to another URL, which may be intended: {listed}."
        return Finding.unknown(CheckId.OVERRIDES, what, remedy)
    return Finding.wrong(CheckId.OVERRIDES, f"Overrides send the account's events to another URL: {listed}.", remedy)


def _overrides_of(account: Account) -> list[tuple[str, str]]:
    """Return the account and its numbers, each with the URL of its override, empty for none."""
    numbers = [(f"number {number.id} ({number.shown})", number.override) for number in account.numbers]
    return [(f"account {account.id}", account.override), *numbers]


def _subscribe(app: str, url: str, directory: str | None) -> str:
    credentials = f" --credentials {shlex.quote(directory)}" if directory else ""
    return f"whatsapp-webhook subscribe {url or 'URL'} --app {app}{credentials}"


def _refused(check_id: CheckId, ex: GraphRefused) -> Finding:
    """Return an unknown finding if the Graph API could not be asked, a wrong one if it refused."""
    state = FindingState.UNKNOWN if ex.again or not ex.code or ex.code in RATE_LIMIT_CODES else FindingState.WRONG
    what = ex.what if ex.what.startswith("https:") else f"{ex.what[:1].upper()}{ex.what[1:]}"
    return Finding(check_id, state, f"{what}.", ex.remedy)
