"""What is to change at Meta: from what is wanted and what is registered to steps, or to why not. Pure."""

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence

from service.meta.graph.plan_types import DROP, NO_OVERRIDE, NOTHING, REPLACE, Allowed, Plan, PlanStep, Wanted
from service.meta.graph.registration import OBJECT, Account, App, RegisteredNumber
from service.meta.graph.urls import same


def subscription(
    wanted: Wanted, app: App, accounts: Sequence[Account], numbers: Sequence[RegisteredNumber], allowed: Allowed
) -> Plan:
    """Plan what gets notifications to come to the wanted URL; no step where nothing is to change."""
    steps: list[PlanStep] = []
    refusals: list[str] = []
    notes: list[str] = []
    if not wanted.overridden:
        _plan_app(wanted, app, allowed, steps, refusals)
    elif app.subscription is None:
        refusals.append(
            "The app has no subscription yet, and an override needs one: run `subscribe` without overrides first, "
            "with the URL for all that is not overridden."
        )
    for account in accounts:
        _plan_account(wanted, account, allowed, steps, refusals)
        for number in account.numbers:
            if number.id not in wanted.overridden and _is_elsewhere(number.override, wanted.callback_url):
                _plan_elsewhere(wanted, number, allowed, steps, notes)
    for number in numbers:
        _plan_number(wanted, number, allowed, steps, refusals)
    return Plan(tuple(steps), tuple(refusals), tuple(notes))


def _plan_app(wanted: Wanted, app: App, allowed: Allowed, steps: list[PlanStep], refusals: list[str]) -> None:
    there = app.subscription
    if there and not same(there.callback_url, wanted.callback_url) and not allowed.replace:
        refusals.append(
            f"The app sends to {there.callback_url}, which is not the URL to be registered, and it can send to one "
            f"only. If that one is to get nothing any more, say {REPLACE}; else use an app of your own, or an override."
        )
    fields = set(there.fields) if there else set[str]()
    too_many = fields - wanted.fields
    is_ours = there is not None and there.active and same(there.callback_url, wanted.callback_url)
    is_there = is_ours and wanted.fields <= fields
    path = f"{app.id}/subscriptions"
    if not is_there or allowed.again:
        before = f"{there.callback_url}{'' if there.active else ', not active'}" if there else NOTHING
        change = _difference(fields, wanted.fields) if there else f": {_listed(wanted.fields)}"
        once_more = " (once more)" if is_there and not too_many else ""
        parameters = {
            "object": OBJECT,
            "callback_url": wanted.callback_url,
            "verify_token": wanted.verify_token,
            "fields": ",".join(sorted(wanted.fields)),
            "include_values": "true",
        }
        then = f"{wanted.callback_url}{change}{once_more}"
        steps.append(PlanStep(f"app {app.id}", before, then, "POST", path, parameters, as_app=True))
    elif too_many:
        parameters = {"object": OBJECT, "fields": ",".join(sorted(too_many))}
        then = f"{wanted.callback_url}{_difference(wanted.fields | too_many, wanted.fields)}"
        now = wanted.callback_url
        steps.append(PlanStep(f"app {app.id}", now, then, "DELETE", path, parameters, as_app=True, trims=True))


def _plan_account(
    wanted: Wanted, account: Account, allowed: Allowed, steps: list[PlanStep], refusals: list[str]
) -> None:
    what, path = f"account {account.id}", f"{account.id}/subscribed_apps"
    is_overridden = account.id in wanted.overridden
    if is_overridden and _is_elsewhere(account.override, wanted.callback_url) and not allowed.replace:
        refusals.append(
            f"{_start(what)} has an override to {account.override}, which is not the URL to be registered: "
            f"if that one is to get nothing any more, say {REPLACE}."
        )
    if not account.is_subscribed:
        steps.append(PlanStep(what, "not subscribed", "subscribed", "POST", path))
    if is_overridden:
        if not same(account.override, wanted.callback_url) or allowed.again:
            parameters = {"override_callback_uri": wanted.callback_url, "verify_token": wanted.verify_token}
            now = f"override to {account.override}" if account.override else NO_OVERRIDE
            steps.append(PlanStep(what, now, f"override to {wanted.callback_url}", "POST", path, parameters))
    elif _is_elsewhere(account.override, wanted.callback_url):
        # A POST without a body removes an override, so an account that is subscribed is left alone.
        if allowed.drop_overrides:
            steps.append(PlanStep(what, f"override to {account.override}", NO_OVERRIDE, "POST", path))
        else:
            refusals.append(
                f"{_start(what)} has an override to {account.override}: its notifications go there. "
                f"If they are to come to {wanted.callback_url}, say {DROP}; else leave the account out."
            )


def _plan_elsewhere(
    wanted: Wanted, number: RegisteredNumber, allowed: Allowed, steps: list[PlanStep], notes: list[str]
) -> None:
    """A number's own override is often meant, to try something out: it stays, and is told."""
    if allowed.drop_overrides:
        steps.append(_without(number))
    else:
        notes.append(
            f"{_of_number(number)} keeps its override to {number.override}: what comes for it goes there. "
            f"If it is to come to {wanted.callback_url}, say {DROP}."
        )


def _plan_number(
    wanted: Wanted, number: RegisteredNumber, allowed: Allowed, steps: list[PlanStep], refusals: list[str]
) -> None:
    if _is_elsewhere(number.override, wanted.callback_url) and not allowed.replace:
        refusals.append(
            f"{_start(_of_number(number))} has an override to {number.override}, which is not the URL to be "
            f"registered: if that one is to get nothing any more, say {REPLACE}."
        )
    if not same(number.override, wanted.callback_url) or allowed.again:
        configuration = {"override_callback_uri": wanted.callback_url, "verify_token": wanted.verify_token}
        steps.append(_overriding(number, f"override to {wanted.callback_url}", configuration))


def _overriding(number: RegisteredNumber, then: str, configuration: Mapping[str, str]) -> PlanStep:
    now = f"override to {number.override}" if number.override else NO_OVERRIDE
    parameters = {"webhook_configuration": json.dumps(configuration)}
    return PlanStep(_of_number(number), now, then, "POST", number.id, parameters)


def _without(number: RegisteredNumber) -> PlanStep:
    return _overriding(number, NO_OVERRIDE, {"override_callback_uri": ""})


def end(url: str, app: App, accounts: Sequence[Account], numbers: Sequence[RegisteredNumber], allowed: Allowed) -> Plan:
    """Plan that nothing comes to *url* any more.

    Where it is the app's own, the subscriptions of *accounts* end with it; else only overrides to it do.
    """
    refusals: list[str] = []
    is_own = app.subscription is not None and same(app.subscription.callback_url, url)
    known = {each.id: each for account in accounts for each in account.numbers} | {each.id: each for each in numbers}
    steps = [_without(number) for number in known.values() if same(number.override, url)]
    if is_own and not allowed.drop_overrides:
        for number in known.values():
            refusals += _kept_number(number, url)
    for account in accounts:
        what, path = f"account {account.id}", f"{account.id}/subscribed_apps"
        elsewhere = _is_elsewhere(account.override, url)
        if is_own and account.is_subscribed:
            if elsewhere and not allowed.drop_overrides:
                refusals.append(
                    f"{_start(what)} has an override to {account.override}, which would go with its subscription: "
                    f"say {DROP} where that is meant, else leave the account out."
                )
            now = f"subscribed, with an override to {account.override}" if account.override else "subscribed"
            steps.append(PlanStep(what, now, "not subscribed", "DELETE", path))
        elif same(account.override, url):
            steps.append(PlanStep(what, f"override to {url}", NO_OVERRIDE, "POST", path))
    if is_own:
        path = f"{app.id}/subscriptions"
        steps.append(PlanStep(f"app {app.id}", url, NOTHING, "DELETE", path, {"object": OBJECT}, as_app=True))
    return Plan(tuple(steps), tuple(refusals))


def _kept_number(number: RegisteredNumber, url: str) -> Iterator[str]:
    if _is_elsewhere(number.override, url):
        yield (
            f"{_start(_of_number(number))} has an override to {number.override}, which would get nothing any more "
            f"without the app's subscription: say {DROP} where that is meant."
        )


def _is_elsewhere(override: str, url: str) -> bool:
    return bool(override) and not same(override, url)


def _of_number(number: RegisteredNumber) -> str:
    return f"number {number.id}" + (f" ({number.shown})" if number.shown else "")


def _difference(now: set[str] | frozenset[str], then: frozenset[str]) -> str:
    new, gone = then - now, now - then
    changes = [f"{word} {_listed(names)}" for word, names in (("more:", new), ("not any more:", gone)) if names]
    return f", {'; '.join(changes)}" if changes else ""


def _listed(names: Iterable[str]) -> str:
    return ", ".join(sorted(names))


def _start(words: str) -> str:
    return words[:1].upper() + words[1:]
