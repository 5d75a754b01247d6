"""Reads the current registration at Meta."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Final, NamedTuple

from service.errors import GraphRefused
from service.meta.graph.client import Graph

OBJECT: Final = "whatsapp_business_account"


class Subscription(NamedTuple):
    """The app's own subscription: the URL that it sends to, and the fields."""

    callback_url: str
    fields: tuple[str, ...]
    active: bool = True


class App(NamedTuple):
    """An app, its subscription (None for none), and whether it has a privacy policy, which a live app must have."""

    id: str
    name: str
    subscription: Subscription | None
    has_policy: bool = False


class RegisteredNumber(NamedTuple):
    """A phone number of the business, and the URL of its override; empty for none."""

    id: str
    shown: str
    override: str = ""


class Account(NamedTuple):
    """An account, whether the app is subscribed to it, the URL of its override (empty for none), and its numbers."""

    id: str
    name: str
    is_subscribed: bool
    override: str = ""
    numbers: tuple[RegisteredNumber, ...] = ()


def app(graph: Graph) -> App:
    """Return the app. Raises GraphRefused."""
    app_id = graph.keys.app_id
    found = graph.ask("GET", app_id, {"fields": "id,name,privacy_policy_url"}, as_app=True)
    subscription = None
    for each in graph.pages(f"{app_id}/subscriptions", {}, as_app=True):
        if each.get("object") == OBJECT:
            listed = each.get("fields")
            fields = tuple(sorted(map(_name_of, listed))) if isinstance(listed, list) else ()
            subscription = Subscription(str(each.get("callback_url", "")), fields, _is_true(each.get("active", True)))
    return App(app_id, str(found.get("name", "")), subscription, bool(found.get("privacy_policy_url")))


def account(graph: Graph, account_id: str) -> Account:
    """Return an account and its numbers. Raises GraphRefused, which names the account."""
    with _named(f"account {account_id}"):
        return _account(graph, account_id)


def _account(graph: Graph, account_id: str) -> Account:
    found = graph.ask("GET", account_id, {"fields": "id,name"})
    is_subscribed, override = False, ""
    for each in graph.pages(f"{account_id}/subscribed_apps", {}):
        subscribed_app = each.get("whatsapp_business_api_data")
        if isinstance(subscribed_app, dict) and str(subscribed_app.get("id")) == graph.keys.app_id:
            is_subscribed, override = True, str(each.get("override_callback_uri") or "")
    numbers = graph.pages(f"{account_id}/phone_numbers", {"fields": "id,display_phone_number,webhook_configuration"})
    return Account(account_id, str(found.get("name", "")), is_subscribed, override, tuple(map(_number, numbers)))


def number(graph: Graph, number_id: str) -> RegisteredNumber:
    """Return one number. Raises GraphRefused, which names the number."""
    with _named(f"number {number_id}"):
        return _number(graph.ask("GET", number_id, {"fields": "id,display_phone_number,webhook_configuration"}))


def accounts(graph: Graph, account_ids: Sequence[str]) -> tuple[Account, ...]:
    """Return several accounts. Raises GraphRefused."""
    return tuple(account(graph, each) for each in account_ids)


@contextmanager
def _named(name: str) -> Iterator[None]:
    try:
        yield
    except GraphRefused as ex:
        raise ex.of(name) from ex


def _number(found: dict[str, Any]) -> RegisteredNumber:
    configured = found.get("webhook_configuration")
    override = configured.get("phone_number") if isinstance(configured, dict) else ""
    return RegisteredNumber(str(found.get("id", "")), str(found.get("display_phone_number", "")), str(override or ""))


def _is_true(value: object) -> bool:
    """Return a boolean that Meta sends as a boolean or as a string."""
    return value is not False and str(value).lower() != "false"


def _name_of(field: object) -> str:
    """Return a field's name: a field is an object with a version, or in older responses a name."""
    return str(field.get("name", "")) if isinstance(field, dict) else str(field)
