"""Compares the wanted registration with the current one, and returns the steps to change it, or refusals. Pure."""

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence

from service.meta.graph.plan_types import DROP, NO_OVERRIDE, NOTHING, REPLACE, Allowed, Plan, PlanStep, Wanted
from service.meta.graph.registration import OBJECT, Account, App, RegisteredNumber
from service.meta.graph.urls import same


def subscription(
    wanted: Wanted, app: App, accounts: Sequence[Account], numbers: Sequence[RegisteredNumber], allowed: Allowed
) -> Plan:
    """Plan the steps after which Meta sends to the wanted URL; no steps if nothing has to change."""
    steps: list[PlanStep] = []
    refusals: list[str] = []
    notes: list[str] = []
    if not wanted.overridden:
        _plan_app(wanted, app, allowed, steps, refusals)
    elif app.subscription is None:
        refusals.append(
            "The app has no subscription yet, and an override requires one: run `subscribe` without overrides first, "
            "with the URL for the events that are not overridden."
        )
    for account in accounts:
        _plan_account(wanted, account, allowed, steps, refusals)
        for number in account.numbers:
            if number.id not in wanted.overridden and _is_elsewhere(number.override, wanted.callback_url):
                _plan_other_override(wanted, number, allowed, steps, notes)
    for number in numbers:
        _plan_number(wanted, number, allowed, steps, refusals)
    return Plan(tuple(steps), tuple(refusals), tuple(notes))


def _plan_app(wanted: Wanted, app: App, allowed: Allowed, steps: list[PlanStep], refusals: list[str]) -> None:
    current = app.subscription
    if current and not same(current.callback_url, wanted.callback_url) and not allowed.replace:
        refusals.append(
            f"The app sends to {current.callback_url}, not to the URL to be registered, and an app sends to one URL "
            f"only. To replace that URL, use {REPLACE}; otherwise use an app of your own, or an override."
        )
    fields = set(current.fields) if current else set[str]()
    superfluous = fields - wanted.fields
    is_active = current is not None and current.active and same(current.callback_url, wanted.callback_url)
    is_registered = is_active and wanted.fields <= fields
    path = f"{app.id}/subscriptions"
    if not is_registered or allowed.again:
        now = f"{current.callback_url}{'' if current.active else ', not active'}" if current else NOTHING
        change = _difference(fields, wanted.fields) if current else f": {_listed(wanted.fields)}"
        again = " (registered again)" if is_registered and not superfluous else ""
        parameters = {
            "object": OBJECT,
            "callback_url": wanted.callback_url,
            "verify_token": wanted.verify_token,
            "fields": ",".join(sorted(wanted.fields)),
            "include_values": "true",
        }
        then = f"{wanted.callback_url}{change}{again}"
        steps.append(PlanStep(f"app {app.id}", now, then, "POST", path, parameters, as_app=True))
    elif superfluous:
        parameters = {"object": OBJECT, "fields": ",".join(sorted(superfluous))}
        then = f"{wanted.callback_url}{_difference(wanted.fields | superfluous, wanted.fields)}"
        now = wanted.callback_url
        steps.append(PlanStep(f"app {app.id}", now, then, "DELETE", path, parameters, as_app=True, trims=True))


def _plan_account(
    wanted: Wanted, account: Account, allowed: Allowed, steps: list[PlanStep], refusals: list[str]
) -> None:
    what, path = f"account {account.id}", f"{account.id}/subscribed_apps"
    is_overridden = account.id in wanted.overridden
    if is_overridden and _is_elsewhere(account.override, wanted.callback_url) and not allowed.replace:
        refusals.append(
            f"{_capitalized(what)} has an override to {account.override}, which is not the URL to be registered. "
            f"To replace that override, use {REPLACE}."
        )
    if not account.is_subscribed:
        steps.append(PlanStep(what, "not subscribed", "subscribed", "POST", path))
    if is_overridden:
        if not same(account.override, wanted.callback_url) or allowed.again:
            parameters = {"override_callback_uri": wanted.callback_url, "verify_token": wanted.verify_token}
            now = f"override to {account.override}" if account.override else NO_OVERRIDE
            steps.append(PlanStep(what, now, f"override to {wanted.callback_url}", "POST", path, parameters))
    elif _is_elsewhere(account.override, wanted.callback_url):
        # A POST without a body removes an override, so none is sent for an account that is already subscribed.
        if allowed.drop_overrides:
            steps.append(PlanStep(what, f"override to {account.override}", NO_OVERRIDE, "POST", path))
        else:
            refusals.append(
                f"{_capitalized(what)} has an override to {account.override}: its events are sent to that URL. "
                f"To send them to {wanted.callback_url}, use {DROP}; otherwise leave the account out."
            )


def _plan_other_override(
    wanted: Wanted, number: RegisteredNumber, allowed: Allowed, steps: list[PlanStep], notes: list[str]
) -> None:
    """Keep a number's own override, and add a note: it is often intended, for a test."""
    if allowed.drop_overrides:
        steps.append(_without_override(number))
    else:
        notes.append(
            f"{_name_of(number)} keeps its override to {number.override}: its events are sent to that URL. "
            f"To send them to {wanted.callback_url}, use {DROP}."
        )


def _plan_number(
    wanted: Wanted, number: RegisteredNumber, allowed: Allowed, steps: list[PlanStep], refusals: list[str]
) -> None:
    if _is_elsewhere(number.override, wanted.callback_url) and not allowed.replace:
        refusals.append(
            f"{_capitalized(_name_of(number))} has an override to {number.override}, which is not the URL to be "
            f"registered. To replace that override, use {REPLACE}."
        )
    if not same(number.override, wanted.callback_url) or allowed.again:
        configuration = {"override_callback_uri": wanted.callback_url, "verify_token": wanted.verify_token}
        steps.append(_set_override(number, f"override to {wanted.callback_url}", configuration))


def _set_override(number: RegisteredNumber, then: str, configuration: Mapping[str, str]) -> PlanStep:
    now = f"override to {number.override}" if number.override else NO_OVERRIDE
    parameters = {"webhook_configuration": json.dumps(configuration)}
    return PlanStep(_name_of(number), now, then, "POST", number.id, parameters)


def _without_override(number: RegisteredNumber) -> PlanStep:
    return _set_override(number, NO_OVERRIDE, {"override_callback_uri": ""})


def end(url: str, app: App, accounts: Sequence[Account], numbers: Sequence[RegisteredNumber], allowed: Allowed) -> Plan:
    """Plan the steps after which Meta sends nothing to *url*.

    If it is the app's own URL, the subscriptions of the app and of *accounts* are deleted; otherwise only overrides to
    it are.
    """
    refusals: list[str] = []
    is_own = app.subscription is not None and same(app.subscription.callback_url, url)
    known = {each.id: each for account in accounts for each in account.numbers} | {each.id: each for each in numbers}
    steps = [_without_override(number) for number in known.values() if same(number.override, url)]
    if is_own and not allowed.drop_overrides:
        for number in known.values():
            refusals += _refusal_of(number, url)
    for account in accounts:
        what, path = f"account {account.id}", f"{account.id}/subscribed_apps"
        elsewhere = _is_elsewhere(account.override, url)
        if is_own and account.is_subscribed:
            if elsewhere and not allowed.drop_overrides:
                refusals.append(
                    f"{_capitalized(what)} has an override to {account.override}, which would be removed with its "
                    f"subscription. If that is intended, use {DROP}; otherwise leave the account out."
                )
            now = f"subscribed, with an override to {account.override}" if account.override else "subscribed"
            steps.append(PlanStep(what, now, "not subscribed", "DELETE", path))
        elif same(account.override, url):
            steps.append(PlanStep(what, f"override to {url}", NO_OVERRIDE, "POST", path))
    if is_own:
        path = f"{app.id}/subscriptions"
        steps.append(PlanStep(f"app {app.id}", url, NOTHING, "DELETE", path, {"object": OBJECT}, as_app=True))
    return Plan(tuple(steps), tuple(refusals))


def _refusal_of(number: RegisteredNumber, url: str) -> Iterator[str]:
    if _is_elsewhere(number.override, url):
        yield (
            f"{_capitalized(_name_of(number))} has an override to {number.override}, which would receive nothing "
            f"without the app's subscription. If that is intended, use {DROP}."
        )


def _is_elsewhere(override: str, url: str) -> bool:
    return bool(override) and not same(override, url)


def _name_of(number: RegisteredNumber) -> str:
    return f"number {number.id}" + (f" ({number.shown})" if number.shown else "")


def _difference(now: set[str] | frozenset[str], then: frozenset[str]) -> str:
    added, removed = then - now, now - then
    changes = [f"{word} {_listed(names)}" for word, names in (("added:", added), ("removed:", removed)) if names]
    return f", {'; '.join(changes)}" if changes else ""


def _listed(names: Iterable[str]) -> str:
    return ", ".join(sorted(names))


def _capitalized(text: str) -> str:
    return text[:1].upper() + text[1:]
