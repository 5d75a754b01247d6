"""What is registered at Meta, and why it would keep notifications away."""

import shlex
from collections.abc import Iterator, Sequence
from typing import Final, NamedTuple

from service.doctor.finding import Finding, FindingState
from service.errors import GraphRefused
from service.meta import webhook_fields
from service.meta.graph import registration
from service.meta.graph.client import Graph
from service.meta.graph.errors import RATE_LIMIT_CODES
from service.meta.graph.registration import Account, App
from service.meta.graph.urls import same, why_not_called
from service.outcomes import CheckId

FIRST: Final = (webhook_fields.MESSAGES_FIELD, "account_update")  # what everybody wants


class Here(NamedTuple):
    """What an override sends here, whether any account was looked at for one, and whether something real has come."""

    overridden: Sequence[str]
    are_seen: bool
    is_real: bool


class AtMeta(NamedTuple):
    """What was found at Meta; *position* is the line of the app secret that is the app's, 0 for none that is known."""

    findings: list[Finding]
    callback_url: str = ""
    position: int = 0
    is_reached: bool = True


def look(
    graphs: Sequence[Graph],
    url: str,
    fields: frozenset[str],
    accounts: Sequence[str],
    real: str | None,
    *,
    directory: str | None,
) -> AtMeta:
    """Look at the app, its subscription and its accounts; *real* tells of an event that only a live app sends.

    *directory* is where the credentials are, if the commands that mend must be told.
    Of *graphs* there is one for each app secret in force: the first one that Meta takes as the app's is asked.
    """
    position, app = _open(graphs)
    if isinstance(app, GraphRefused):
        return AtMeta([_refused(CheckId.APP, app)], is_reached=bool(app.code))
    its = "its secret is the one here" if len(graphs) == 1 else f"its secret is line {position}"
    told = Finding.ok(CheckId.APP, f"App {app.id} ({app.name}); {its}.")
    registered_url = app.subscription.callback_url if app.subscription else ""
    wanted = url or registered_url
    command = _subscribe(app.id, wanted, directory)
    seen: list[Account] = []
    of_accounts = list(_accounts(graphs[position - 1], accounts, wanted, command, seen))
    to_here = [what for account in seen for what, where in _places(account) if where and same(where, wanted)]
    here = Here(to_here, are_seen=bool(seen), is_real=real is not None)
    if not app.subscription:
        listed = ",".join(sorted(fields or FIRST))
        command = f"{command}{''.join(f' --account {each}' for each in accounts)} --fields {listed}"
    of_app = [told, _live(app, real), *_subscription(app, wanted, fields, here, command)]
    return AtMeta(of_app + of_accounts, registered_url, position)


def _open(graphs: Sequence[Graph]) -> tuple[int, App | GraphRefused]:
    """Find which secret is the app's; 0 for none, and then what Meta says of the first."""
    refused: list[GraphRefused] = []
    for position, graph in enumerate(graphs, start=1):
        try:
            return position, registration.app(graph)
        except GraphRefused as ex:
            refused.append(ex)
            if not ex.code:  # it is not the secret
                break
    return 0, refused[0]


def _accounts(graph: Graph, accounts: Sequence[str], url: str, command: str, seen: list[Account]) -> Iterator[Finding]:
    if not graph.keys.access_token:
        where = "business.facebook.com > Settings > System users > Generate token"
        yield Finding.unknown(
            CheckId.ACCOUNTS,
            "Without an access token the accounts can't be asked.",
            f"Put one into the file access-token: {where}.",
        )
    elif not accounts:
        yield Finding.unknown(
            CheckId.ACCOUNTS, "No account is named.", "Name it with --account, or in WEBHOOK_ACCOUNTS."
        )
    else:
        for which in accounts:
            yield from _account(graph, which, url, f"{command} --account {which}", seen)


def _live(app: App, real: str | None) -> Finding:
    if real:
        return Finding.ok(CheckId.APP_LIVE, f"It is: {real}")
    where = "App dashboard > Publish. In development mode an app gets what the Test button sends, and nothing real."
    if not app.has_policy:
        return Finding.wrong(
            CheckId.APP_LIVE,
            "The app is in development mode: it names no privacy policy, without which Meta lets none go live.",
            f"App settings > Basic > Privacy policy URL; then {where}",
        )
    return Finding.unknown(
        CheckId.APP_LIVE, "Whether the app is live, the Graph API does not tell.", f"Look under {where}"
    )


def _subscription(app: App, url: str, fields: frozenset[str], here: Here, command: str) -> Iterator[Finding]:
    """Say whether the app sends to *url*, by its own subscription or by an override."""
    there = app.subscription
    if there is None:
        yield Finding.wrong(CheckId.CALLBACK, "The app has no callback URL for WhatsApp: Meta sends nothing.", command)
        return
    is_own = same(there.callback_url, url)
    if not is_own and not here.overridden:
        yield _elsewhere(there.callback_url, url, here, command)
    elif not there.active:
        remedy = f"{command} --force" if is_own else "Who owns that URL runs `subscribe --force` for it."
        yield Finding.wrong(CheckId.CALLBACK, "Meta has switched the subscription off.", remedy)
    elif is_own:
        yield Finding.ok(CheckId.CALLBACK, f"The app sends to {there.callback_url}.")
    else:
        whose = ", ".join(here.overridden)
        told = f"The app's own URL is {there.callback_url}; an override sends here what comes for {whose}."
        yield Finding.ok(CheckId.CALLBACK, told)
    missing = (fields or {webhook_fields.MESSAGES_FIELD}) - set(there.fields)
    if missing:
        yield Finding.wrong(
            CheckId.FIELDS,
            f"Meta is not asked to send {', '.join(sorted(missing))}.",
            f"{command} --fields {','.join(sorted(set(there.fields) | missing))}",
        )
    else:
        yield Finding.ok(CheckId.FIELDS, f"{', '.join(there.fields)}.")


def _elsewhere(registered_url: str, url: str, here: Here, command: str) -> Finding:
    if why_not_called(url):
        what = f"The app sends to {registered_url}, and to {url} Meta would not send."
        return Finding.wrong(
            CheckId.CALLBACK, what, "Is the registered one right? Then ask about that one, with --url."
        )
    what = f"The app sends to {registered_url}, and not to {url}."
    remedy = (
        "An app sends to one URL. If that one is somebody's, have an app of your own, or an override for an account or "
        f"a number; if it is to get nothing any more: {command} --replace"
    )
    if here.are_seen:
        return Finding.wrong(CheckId.CALLBACK, what, remedy)
    what += " Whether an override sends here was not seen: for that, name the accounts, with an access token."
    # Something that came is a reason to think so.
    return (
        Finding.unknown(CheckId.CALLBACK, what, remedy)
        if here.is_real
        else Finding.wrong(CheckId.CALLBACK, what, remedy)
    )


def _account(graph: Graph, which: str, url: str, command: str, seen: list[Account]) -> Iterator[Finding]:
    try:
        account = registration.account(graph, which)
    except GraphRefused as ex:
        yield _refused(CheckId.ACCOUNTS, ex)
        return
    seen.append(account)
    if not account.is_subscribed:
        what = f"The app is not subscribed to account {which} ({account.name}): Meta sends nothing of it."
        yield Finding.wrong(CheckId.ACCOUNTS, what, command)
        return
    yield Finding.ok(CheckId.ACCOUNTS, f"Subscribed to account {which} ({account.name}).")
    yield _overrides(account, url, f"{command} --drop-overrides, if it is to come here.")


def _overrides(account: Account, url: str, remedy: str) -> Finding:
    """Say what an override sends elsewhere: wrong where nothing of the account comes here, else it may be meant."""
    elsewhere = {what: where for what, where in _places(account) if where and url and not same(where, url)}
    if not elsewhere:
        return Finding.ok(CheckId.OVERRIDES, "None that sends elsewhere.")
    told = "; ".join(f"what comes for {what}, to {where}" for what, where in elsewhere.items())
    effective = [number.override or account.override for number in account.numbers] or [account.override]
    if any(not where or same(where, url) for where in effective):
        return Finding.unknown(CheckId.OVERRIDES, f"Some send elsewhere, which may be meant: {told}.", remedy)
    return Finding.wrong(CheckId.OVERRIDES, f"An override sends elsewhere {told}.", remedy)


def _places(account: Account) -> list[tuple[str, str]]:
    """Give what may have an override, and where that sends; empty for none."""
    numbers = [(f"number {number.id} ({number.shown})", number.override) for number in account.numbers]
    return [(f"account {account.id}", account.override), *numbers]


def _subscribe(app: str, url: str, directory: str | None) -> str:
    where = f" --credentials {shlex.quote(directory)}" if directory else ""
    return f"whatsapp-webhook subscribe {url or 'URL'} --app {app}{where}"


def _refused(check: CheckId, ex: GraphRefused) -> Finding:
    """Take what keeps the Graph API from being asked for unknown, and what it refuses for wrong."""
    state = FindingState.UNKNOWN if ex.again or not ex.code or ex.code in RATE_LIMIT_CODES else FindingState.WRONG
    what = ex.what if ex.what.startswith("https:") else f"{ex.what[:1].upper()}{ex.what[1:]}"
    return Finding(check, state, f"{what}.", ex.remedy)
