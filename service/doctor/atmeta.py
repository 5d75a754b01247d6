"""What is registered at Meta, and why it would keep notifications away."""

from collections.abc import Iterator, Sequence
from typing import Final

from service.doctor.finding import Finding, State
from service.errors import GraphRefused
from service.meta.graph import registered
from service.meta.graph.client import Graph
from service.meta.graph.registered import Account, App

APP: Final = "app"
MESSAGES: Final = "messages"


def look(
    graph: Graph, url: str, fields: frozenset[str], accounts: Sequence[str], real: str | None
) -> tuple[list[Finding], App | None]:
    """Look at the app, its subscription and its accounts; *real* tells of an event that only a live app sends."""
    try:
        app = registered.app(graph)
    except GraphRefused as ex:
        return [_refused(APP, ex)], None
    found = [Finding.ok(APP, f"App {app.id} ({app.name}); its secret is the one here."), _live(app, real)]
    found += _subscription(app, url or (app.subscription.callback_url if app.subscription else ""), fields)
    if not graph.keys.access_token:
        found.append(
            Finding.unknown(
                "accounts",
                "Without an access token the accounts can't be asked.",
                "Put one into the file access-token: business.facebook.com > Settings > System users > Generate token.",
            )
        )
    elif not accounts:
        found.append(
            Finding.unknown("accounts", "No account is named.", "Name it with --account, or in WEBHOOK_ACCOUNTS.")
        )
    else:
        for which in accounts:
            found += _account(graph, which, url)
    return found, app


def _live(app: App, real: str | None) -> Finding:
    if real:
        return Finding.ok("app live", f"It is: {real}")
    where = "App dashboard > Publish. In development mode an app gets what the Test button sends, and nothing real."
    if not app.has_policy:
        return Finding.wrong(
            "app live",
            "The app is in development mode: it names no privacy policy, without which Meta lets none go live.",
            f"App settings > Basic > Privacy policy URL; then {where}",
        )
    return Finding.unknown("app live", "Whether the app is live, the Graph API does not tell.", f"Look under {where}")


def _subscription(app: App, url: str, fields: frozenset[str]) -> Iterator[Finding]:
    there = app.subscription
    if there is None:
        yield Finding.wrong(
            "callback",
            "The app has no callback URL for WhatsApp: Meta sends nothing.",
            _subscribe(app.id, url),
        )
        return
    if there.callback_url != url:
        yield Finding.wrong(
            "callback",
            f"The app sends to {there.callback_url}, and not to {url}.",
            f"{_subscribe(app.id, url)} --replace, if that one is to get nothing any more.",
        )
    elif not there.active:
        yield Finding.wrong("callback", "Meta has switched the subscription off.", f"{_subscribe(app.id, url)} --again")
    else:
        yield Finding.ok("callback", f"The app sends to {there.callback_url}.")
    missing = (fields or {MESSAGES}) - set(there.fields)
    if missing:
        yield Finding.wrong(
            "fields",
            f"Meta is not asked to send {', '.join(sorted(missing))}.",
            f"{_subscribe(app.id, url)} --fields {','.join(sorted(set(there.fields) | missing))}",
        )
    else:
        yield Finding.ok("fields", f"{', '.join(there.fields)}.")


def _account(graph: Graph, which: str, url: str) -> Iterator[Finding]:
    try:
        account = registered.account(graph, which)
    except GraphRefused as ex:
        yield _refused("accounts", ex)
        return
    if not account.is_subscribed:
        yield Finding.wrong(
            "accounts",
            f"The app is not subscribed to account {which} ({account.name}): Meta sends it nothing of that.",
            f"{_subscribe(graph.keys.app_id, url)} --account {which}",
        )
        return
    yield Finding.ok("accounts", f"Subscribed to account {which} ({account.name}).")
    yield from _overrides(account, url, _subscribe(graph.keys.app_id, url))


def _overrides(account: Account, url: str, command: str) -> Iterator[Finding]:
    places = [(f"account {account.id}", account.override)]
    places += [(f"number {number.id} ({number.shown})", number.override) for number in account.numbers]
    elsewhere = [(what, where) for what, where in places if where and url and where != url]
    for what, where in elsewhere:
        yield Finding.wrong(
            "overrides",
            f"An override sends what comes for {what} to {where}.",
            f"{command} --account {account.id} --drop-overrides, if it is to come here.",
        )
    if not elsewhere:
        yield Finding.ok("overrides", "None that sends elsewhere.")


def _subscribe(app: str, url: str) -> str:
    return f"whatsapp-webhook subscribe {url or 'URL'} --app {app}"


def _refused(check: str, ex: GraphRefused) -> Finding:
    """Take what keeps the Graph API from being asked for unknown, and what it refuses for wrong."""
    state = State.UNKNOWN if ex.again or not ex.code else State.WRONG
    return Finding(check, state, f"{ex.what[:1].upper()}{ex.what[1:]}.", ex.remedy)
