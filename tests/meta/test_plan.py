"""The plan to change the registration at Meta: nothing is replaced without permission, or changed without need."""

import json
from collections.abc import Sequence

import pytest

from service.meta.graph import plan
from service.meta.graph.plan_types import Allowed, Plan, PlanStep, Wanted
from service.meta.graph.registration import Account, App, RegisteredNumber, Subscription

URL, AGAIN = "https://wa.example.com/webhooks", "HTTPS://WA.example.com:443/webhooks"
ELSEWHERE, THIRD = "https://elsewhere.example/x", "https://third.example/x"
TOKEN = "a-verify-token"
APP = App("1", "Shop", Subscription(URL, ("messages",)))
ACCOUNT = Account("2", "Shop account", is_subscribed=True)
NUMBER = RegisteredNumber("3", "+1 555 0100")
WANTED = Wanted(URL, TOKEN, frozenset({"messages"}))
NOTHING = Plan(())


def subscribed(
    wanted: Wanted = WANTED,
    app: App = APP,
    accounts: Sequence[Account] = (ACCOUNT,),
    numbers: Sequence[RegisteredNumber] = (),
    **allowed: bool,
) -> Plan:
    return plan.subscription(wanted, app, accounts, numbers, Allowed(**allowed))


def ended(
    app: App = APP, accounts: Sequence[Account] = (ACCOUNT,), numbers: Sequence[RegisteredNumber] = (), **allowed: bool
) -> Plan:
    return plan.end(URL, app, accounts, numbers, Allowed(**allowed))


def sending(url: str, *fields: str, active: bool = True) -> App:
    return APP._replace(subscription=Subscription(url, fields or ("messages",), active))


def of_app(now: str, then: str, fields: str = "messages") -> PlanStep:
    parameters = {
        "object": "whatsapp_business_account",
        "callback_url": URL,
        "verify_token": TOKEN,
        "fields": fields,
        "include_values": "true",
    }
    return PlanStep("app 1", now, then, "POST", "1/subscriptions", parameters, as_app=True)


def of_account(now: str, then: str, method: str = "POST", **parameters: str) -> PlanStep:
    return PlanStep("account 2", now, then, method, "2/subscribed_apps", parameters)


def of_number(now: str, then: str, **configuration: str) -> PlanStep:
    parameters = {"webhook_configuration": json.dumps(configuration)}
    return PlanStep("number 3 (+1 555 0100)", now, then, "POST", "3", parameters)


HERE = {"override_callback_uri": URL, "verify_token": TOKEN}
NOWHERE = {"override_callback_uri": ""}


@pytest.mark.parametrize(
    ("app", "fields", "step"),
    [
        (
            APP._replace(subscription=None),
            "messages,calls,history,flows",
            of_app("nothing", f"{URL}: calls, flows, history, messages", "calls,flows,history,messages"),
        ),
        (APP, "messages", None),
        (sending(AGAIN), "messages", None),
        (APP, "calls,messages", of_app(URL, f"{URL}, added: calls", "calls,messages")),
        (sending(URL, "calls"), "messages", of_app(URL, f"{URL}, added: messages; removed: calls")),
        (sending(URL, active=False), "messages", of_app(f"{URL}, not active", URL)),
        (
            sending(URL, "messages", "security", "history", "flows", "calls"),
            "messages",
            PlanStep(
                "app 1",
                URL,
                f"{URL}, removed: calls, flows, history, security",
                "DELETE",
                "1/subscriptions",
                {"object": "whatsapp_business_account", "fields": "calls,flows,history,security"},
                as_app=True,
                trims=True,
            ),
        ),
    ],
)
def test_the_apps_subscription(app: App, fields: str, step: PlanStep | None) -> None:
    """One request if something differs, none if nothing does; superfluous fields are deleted."""
    wanted = WANTED._replace(fields=frozenset(fields.split(",")))
    assert subscribed(wanted, app) == Plan((step,) if step else ())


def test_registering_again_on_request() -> None:
    """With *again*, whatever is registered already is registered again: the verify token may have changed."""
    account, number = ACCOUNT._replace(override=URL), NUMBER._replace(override=URL)
    assert subscribed(again=True) == Plan((of_app(URL, f"{URL} (registered again)"),))
    assert subscribed(app=sending(URL, "messages", "calls"), again=True) == Plan(
        (of_app(URL, f"{URL}, removed: calls"),)
    )
    assert subscribed(app=sending(URL, "calls"), again=True).steps[0].then == f"{URL}, added: messages; removed: calls"
    wanted = WANTED._replace(overridden=frozenset("23"))
    assert subscribed(wanted, accounts=(account,), numbers=(number,)) == NOTHING
    assert subscribed(wanted, accounts=(account,), numbers=(number,), again=True) == Plan(
        (
            of_account(f"override to {URL}", f"override to {URL}", **HERE),
            of_number(f"override to {URL}", f"override to {URL}", **HERE),
        )
    )


def test_another_url_of_the_app() -> None:
    """It is refused to replace it, unless that is allowed."""
    step = of_app(ELSEWHERE, URL)
    refusal = (
        f"The app sends to {ELSEWHERE}, not to the URL to be registered, and an app sends to one URL only. "
        "To replace that URL, use --replace; otherwise use an app of your own, or an override."
    )
    assert subscribed(app=sending(ELSEWHERE)) == Plan((step,), (refusal,))
    assert subscribed(app=sending(ELSEWHERE), drop_overrides=True, again=True).refusals == (refusal,)
    assert subscribed(app=sending(ELSEWHERE), replace=True) == Plan((step,))


def test_an_account() -> None:
    """It is subscribed if it is not; if it is, no request is sent, because that would remove its override."""
    new = ACCOUNT._replace(is_subscribed=False)
    assert subscribed(accounts=(new,)) == Plan((of_account("not subscribed", "subscribed"),))
    assert subscribed(accounts=(ACCOUNT._replace(override=URL),)) == NOTHING
    assert subscribed(accounts=(ACCOUNT._replace(override=AGAIN),)) == NOTHING


def test_an_override_of_an_account() -> None:
    """It is refused to subscribe an account with an override to another URL, unless dropping it is allowed."""
    account = ACCOUNT._replace(override=ELSEWHERE)
    refusal = (
        f"Account 2 has an override to {ELSEWHERE}: its events are sent to that URL. "
        f"To send them to {URL}, use --drop-overrides; otherwise leave the account out."
    )
    assert subscribed(accounts=(account,), replace=True) == Plan((), (refusal,))
    assert subscribed(accounts=(account,), drop_overrides=True) == Plan(
        (of_account(f"override to {ELSEWHERE}", "no override"),)
    )


def test_an_override_of_a_number_of_the_account() -> None:
    """It is kept, with a note, because it is often intended."""
    number = NUMBER._replace(override=ELSEWHERE)
    account = ACCOUNT._replace(numbers=(RegisteredNumber("4", ""), number, RegisteredNumber("5", "", URL)))
    note = (
        f"number 3 (+1 555 0100) keeps its override to {ELSEWHERE}: its events are sent to that URL. "
        f"To send them to {URL}, use --drop-overrides."
    )
    assert subscribed(accounts=(account,), replace=True) == Plan((), (), (note,))
    assert subscribed(accounts=(account,), drop_overrides=True) == Plan(
        (of_number(f"override to {ELSEWHERE}", "no override", **NOWHERE),)
    )


def test_overriding_an_account() -> None:
    """The app's own subscription is not changed; another override is replaced only if that is allowed."""
    wanted, app = WANTED._replace(overridden=frozenset("2")), sending(THIRD, "calls")
    step = of_account("no override", f"override to {URL}", **HERE)
    assert subscribed(wanted, app) == Plan((step,))
    new = ACCOUNT._replace(is_subscribed=False)
    assert subscribed(wanted, app, (new,)) == Plan((of_account("not subscribed", "subscribed"), step))
    account = ACCOUNT._replace(override=ELSEWHERE)
    replaced = of_account(f"override to {ELSEWHERE}", f"override to {URL}", **HERE)
    refusal = (
        f"Account 2 has an override to {ELSEWHERE}, which is not the URL to be registered. "
        "To replace that override, use --replace."
    )
    assert subscribed(wanted, app, (account,), drop_overrides=True) == Plan((replaced,), (refusal,))
    assert subscribed(wanted, app, (account,), replace=True) == Plan((replaced,))


def test_overriding_a_number() -> None:
    """Its account and the app are not changed; another override is replaced only if that is allowed."""
    wanted, app = WANTED._replace(overridden=frozenset("3")), sending(THIRD, "calls")
    assert subscribed(wanted, app, (), (NUMBER,)) == Plan((of_number("no override", f"override to {URL}", **HERE),))
    number = NUMBER._replace(override=ELSEWHERE)
    replaced = of_number(f"override to {ELSEWHERE}", f"override to {URL}", **HERE)
    refusal = (
        f"Number 3 (+1 555 0100) has an override to {ELSEWHERE}, which is not the URL to be registered. "
        "To replace that override, use --replace."
    )
    account = ACCOUNT._replace(numbers=(number,))
    assert subscribed(wanted, app, (account,), (number,), drop_overrides=True) == Plan((replaced,), (refusal,))
    assert subscribed(wanted, app, (account,), (number,), replace=True) == Plan((replaced,))


def test_an_override_without_a_subscription() -> None:
    """Meta would refuse it, so the plan does."""
    wanted = WANTED._replace(overridden=frozenset("2"))
    refusal = (
        "The app has no subscription yet, and an override requires one: run `subscribe` without overrides first, "
        "with the URL for the events that are not overridden."
    )
    assert subscribed(wanted, APP._replace(subscription=None)).refusals == (refusal,)


UNSUBSCRIBED = PlanStep(
    "app 1", URL, "nothing", "DELETE", "1/subscriptions", {"object": "whatsapp_business_account"}, as_app=True
)


def test_unsubscribing_the_apps_own_url() -> None:
    """The accounts' subscriptions are deleted first, then the app's."""
    assert ended() == Plan((of_account("subscribed", "not subscribed", "DELETE"), UNSUBSCRIBED))
    assert ended(sending(AGAIN)) == ended()
    assert ended(accounts=(ACCOUNT._replace(is_subscribed=False),)) == Plan((UNSUBSCRIBED,))


@pytest.mark.parametrize("app", [sending(ELSEWHERE), APP._replace(subscription=None)])
def test_unsubscribing_a_url_that_is_not_registered(app: App) -> None:
    """Nothing is changed."""
    other = ACCOUNT._replace(override=THIRD, numbers=(NUMBER._replace(override=THIRD),))
    assert ended(app, (ACCOUNT, other), (NUMBER,), drop_overrides=True, replace=True) == NOTHING


def test_unsubscribing_the_url_of_overrides() -> None:
    """Overrides to the URL are removed, each number's once, whether it was given or belongs to an account."""
    number = NUMBER._replace(override=AGAIN)
    account = ACCOUNT._replace(override=AGAIN, numbers=(number, RegisteredNumber("4", "", THIRD)))
    without = of_number(f"override to {AGAIN}", "no override", **NOWHERE)
    assert ended(sending(ELSEWHERE), (account,), (number,)) == Plan(
        (without, of_account(f"override to {URL}", "no override"))
    )
    assert ended(sending(ELSEWHERE), (), (number,)) == Plan((without,))
    own = ACCOUNT._replace(override=URL, numbers=(number,))
    subscription = of_account(f"subscribed, with an override to {URL}", "not subscribed", "DELETE")
    assert ended(accounts=(own,)) == Plan((without, subscription, UNSUBSCRIBED))


def test_unsubscribing_with_overrides_to_other_urls() -> None:
    """It is refused, because those overrides would end too, unless that is allowed."""
    account = ACCOUNT._replace(
        override=ELSEWHERE, numbers=(NUMBER._replace(override=THIRD), RegisteredNumber("4", "", URL))
    )
    steps = (
        PlanStep(
            "number 4", f"override to {URL}", "no override", "POST", "4", {"webhook_configuration": json.dumps(NOWHERE)}
        ),
        of_account(f"subscribed, with an override to {ELSEWHERE}", "not subscribed", "DELETE"),
        UNSUBSCRIBED,
    )
    of_the_account = (
        f"Account 2 has an override to {ELSEWHERE}, which would be removed with its subscription. "
        "If that is intended, use --drop-overrides; otherwise leave the account out."
    )
    of_the_number = (
        f"Number 3 (+1 555 0100) has an override to {THIRD}, which would receive nothing "
        "without the app's subscription. If that is intended, use --drop-overrides."
    )
    assert ended(accounts=(account,), replace=True) == Plan(steps, (of_the_number, of_the_account))
    alone = ended(accounts=(), numbers=(NUMBER._replace(override=THIRD),))
    assert alone == Plan((UNSUBSCRIBED,), (of_the_number,))
    assert ended(accounts=(account,), drop_overrides=True) == Plan(steps)
