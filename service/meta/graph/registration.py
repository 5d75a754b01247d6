"""What is registered at Meta now."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Final, NamedTuple

from service.errors import GraphRefused
from service.meta.graph.client import Graph

OBJECT: Final = "whatsapp_business_account"


class Subscription(NamedTuple):
    """The app's own: to which URL, and which fields."""

    callback_url: str
    fields: tuple[str, ...]
    active: bool = True


class App(NamedTuple):
    """An app, its subscription (None for none), and whether it names a privacy policy, which a live one must."""

    id: str
    name: str
    subscription: Subscription | None
    has_policy: bool = False


class RegisteredNumber(NamedTuple):
    """A number of the business's, and where an override sends what comes for it; empty for none."""

    id: str
    shown: str
    override: str = ""


class Account(NamedTuple):
    """An account, whether the app is subscribed to it, an override of it (empty for none), and its numbers."""

    id: str
    name: str
    is_subscribed: bool
    override: str = ""
    numbers: tuple[RegisteredNumber, ...] = ()


def app(graph: Graph) -> App:
    """Look at the app. Raises GraphRefused."""
    name = graph.keys.app_id
    found = graph.ask("GET", name, {"fields": "id,name,privacy_policy_url"}, as_app=True)
    subscription = None
    for each in graph.pages(f"{name}/subscriptions", {}, as_app=True):
        if each.get("object") == OBJECT:
            listed = each.get("fields")
            fields = tuple(sorted(map(_name_of, listed))) if isinstance(listed, list) else ()
            subscription = Subscription(str(each.get("callback_url", "")), fields, _is_yes(each.get("active", True)))
    return App(name, str(found.get("name", "")), subscription, bool(found.get("privacy_policy_url")))


def account(graph: Graph, which: str) -> Account:
    """Look at an account and its numbers. Raises GraphRefused, which names it."""
    with _named(f"account {which}"):
        return _account(graph, which)


def _account(graph: Graph, which: str) -> Account:
    found = graph.ask("GET", which, {"fields": "id,name"})
    is_subscribed, override = False, ""
    for each in graph.pages(f"{which}/subscribed_apps", {}):
        about = each.get("whatsapp_business_api_data")
        if isinstance(about, dict) and str(about.get("id")) == graph.keys.app_id:
            is_subscribed, override = True, str(each.get("override_callback_uri") or "")
    numbers = graph.pages(f"{which}/phone_numbers", {"fields": "id,display_phone_number,webhook_configuration"})
    return Account(which, str(found.get("name", "")), is_subscribed, override, tuple(map(_number, numbers)))


def number(graph: Graph, which: str) -> RegisteredNumber:
    """Look at one number. Raises GraphRefused, which names it."""
    with _named(f"number {which}"):
        return _number(graph.ask("GET", which, {"fields": "id,display_phone_number,webhook_configuration"}))


def accounts(graph: Graph, which: Sequence[str]) -> tuple[Account, ...]:
    """Look at several accounts. Raises GraphRefused."""
    return tuple(account(graph, each) for each in which)


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


def _is_yes(value: object) -> bool:
    """Read a boolean, which Meta writes as one or as a word."""
    return value is not False and str(value).lower() != "false"


def _name_of(field: object) -> str:
    """Read a field: an object with its version, or in older answers its name alone."""
    return str(field.get("name", "")) if isinstance(field, dict) else str(field)
