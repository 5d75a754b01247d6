"""What is to change at Meta: nothing that is somebody else's, and no more than is needed."""

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
        (APP, "calls,messages", of_app(URL, f"{URL}, more: calls", "calls,messages")),
        (sending(URL, "calls"), "messages", of_app(URL, f"{URL}, more: messages; not any more: calls")),
        (sending(URL, active=False), "messages", of_app(f"{URL}, not active", URL)),
        (
            sending(URL, "messages", "security", "history", "flows", "calls"),
            "messages",
            PlanStep(
                "app 1",
                URL,
                f"{URL}, not any more: calls, flows, history, security",
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
    """One request where something differs, and none where nothing does; fields that are too many are deleted."""
    wanted = WANTED._replace(fields=frozenset(fields.split(",")))
    assert subscribed(wanted, app) == Plan((step,) if step else ())


def test_once_more_on_request() -> None:
    """Of all that is there already: a verify token may be another."""
    account, number = ACCOUNT._replace(override=URL), NUMBER._replace(override=URL)
    assert subscribed(again=True) == Plan((of_app(URL, f"{URL} (once more)"),))
    assert subscribed(app=sending(URL, "messages", "calls"), again=True) == Plan(
        (of_app(URL, f"{URL}, not any more: calls"),)
    )
    assert (
        subscribed(app=sending(URL, "calls"), again=True).steps[0].then == f"{URL}, more: messages; not any more: calls"
    )
    wanted = WANTED._replace(overridden=frozenset("23"))
    assert subscribed(wanted, accounts=(account,), numbers=(number,)) == NOTHING
    assert subscribed(wanted, accounts=(account,), numbers=(number,), again=True) == Plan(
        (
            of_account(f"override to {URL}", f"override to {URL}", **HERE),
            of_number(f"override to {URL}", f"override to {URL}", **HERE),
        )
    )


def test_another_url_of_the_app() -> None:
    """Is somebody's: it stays, unless it is said that it may go."""
    step = of_app(ELSEWHERE, URL)
    refusal = (
        f"The app sends to {ELSEWHERE}, which is not the URL to be registered, and it can send to one only. "
        "If that one is to get nothing any more, say --replace; else use an app of your own, or an override."
    )
    assert subscribed(app=sending(ELSEWHERE)) == Plan((step,), (refusal,))
    assert subscribed(app=sending(ELSEWHERE), drop_overrides=True, again=True).refusals == (refusal,)
    assert subscribed(app=sending(ELSEWHERE), replace=True) == Plan((step,))


def test_an_account() -> None:
    """Is subscribed where it is not; a request to one that is would remove its override, so there is none."""
    new = ACCOUNT._replace(is_subscribed=False)
    assert subscribed(accounts=(new,)) == Plan((of_account("not subscribed", "subscribed"),))
    assert subscribed(accounts=(ACCOUNT._replace(override=URL),)) == NOTHING
    assert subscribed(accounts=(ACCOUNT._replace(override=AGAIN),)) == NOTHING


def test_an_override_of_an_account() -> None:
    """That leads elsewhere stays, unless it is said that it may go."""
    account = ACCOUNT._replace(override=ELSEWHERE)
    refusal = (
        f"Account 2 has an override to {ELSEWHERE}: its notifications go there. "
        f"If they are to come to {URL}, say --drop-overrides; else leave the account out."
    )
    assert subscribed(accounts=(account,), replace=True) == Plan((), (refusal,))
    assert subscribed(accounts=(account,), drop_overrides=True) == Plan(
        (of_account(f"override to {ELSEWHERE}", "no override"),)
    )


def test_an_override_of_a_number_of_the_account() -> None:
    """Stays, and is told: it is often meant."""
    number = NUMBER._replace(override=ELSEWHERE)
    account = ACCOUNT._replace(numbers=(RegisteredNumber("4", ""), number, RegisteredNumber("5", "", URL)))
    note = (
        f"number 3 (+1 555 0100) keeps its override to {ELSEWHERE}: what comes for it goes there. "
        f"If it is to come to {URL}, say --drop-overrides."
    )
    assert subscribed(accounts=(account,), replace=True) == Plan((), (), (note,))
    assert subscribed(accounts=(account,), drop_overrides=True) == Plan(
        (of_number(f"override to {ELSEWHERE}", "no override", **NOWHERE),)
    )


def test_overriding_an_account() -> None:
    """Leaves the app's own subscription alone; another override of it is somebody's."""
    wanted, app = WANTED._replace(overridden=frozenset("2")), sending(THIRD, "calls")
    step = of_account("no override", f"override to {URL}", **HERE)
    assert subscribed(wanted, app) == Plan((step,))
    new = ACCOUNT._replace(is_subscribed=False)
    assert subscribed(wanted, app, (new,)) == Plan((of_account("not subscribed", "subscribed"), step))
    account = ACCOUNT._replace(override=ELSEWHERE)
    taken = of_account(f"override to {ELSEWHERE}", f"override to {URL}", **HERE)
    refusal = (
        f"Account 2 has an override to {ELSEWHERE}, which is not the URL to be registered: "
        "if that one is to get nothing any more, say --replace."
    )
    assert subscribed(wanted, app, (account,), drop_overrides=True) == Plan((taken,), (refusal,))
    assert subscribed(wanted, app, (account,), replace=True) == Plan((taken,))


def test_overriding_a_number() -> None:
    """Leaves its account and the app alone; another override of it is somebody's."""
    wanted, app = WANTED._replace(overridden=frozenset("3")), sending(THIRD, "calls")
    assert subscribed(wanted, app, (), (NUMBER,)) == Plan((of_number("no override", f"override to {URL}", **HERE),))
    number = NUMBER._replace(override=ELSEWHERE)
    taken = of_number(f"override to {ELSEWHERE}", f"override to {URL}", **HERE)
    refusal = (
        f"Number 3 (+1 555 0100) has an override to {ELSEWHERE}, which is not the URL to be registered: "
        "if that one is to get nothing any more, say --replace."
    )
    account = ACCOUNT._replace(numbers=(number,))
    assert subscribed(wanted, app, (account,), (number,), drop_overrides=True) == Plan((taken,), (refusal,))
    assert subscribed(wanted, app, (account,), (number,), replace=True) == Plan((taken,))


def test_an_override_without_a_subscription() -> None:
    """Is refused by Meta, and so by us before."""
    wanted = WANTED._replace(overridden=frozenset("2"))
    refusal = (
        "The app has no subscription yet, and an override needs one: run `subscribe` without overrides first, "
        "with the URL for all that is not overridden."
    )
    assert subscribed(wanted, APP._replace(subscription=None)).refusals == (refusal,)


GONE = PlanStep(
    "app 1", URL, "nothing", "DELETE", "1/subscriptions", {"object": "whatsapp_business_account"}, as_app=True
)


def test_the_end() -> None:
    """Of the app's own URL is that of its accounts' subscriptions, first."""
    assert ended() == Plan((of_account("subscribed", "not subscribed", "DELETE"), GONE))
    assert ended(sending(AGAIN)) == ended()
    assert ended(accounts=(ACCOUNT._replace(is_subscribed=False),)) == Plan((GONE,))


@pytest.mark.parametrize("app", [sending(ELSEWHERE), APP._replace(subscription=None)])
def test_the_end_of_what_is_not_ours(app: App) -> None:
    """Is none."""
    other = ACCOUNT._replace(override=THIRD, numbers=(NUMBER._replace(override=THIRD),))
    assert ended(app, (ACCOUNT, other), (NUMBER,), drop_overrides=True, replace=True) == NOTHING


def test_the_end_of_overrides() -> None:
    """That lead here: each number's once, from wherever it is known."""
    number = NUMBER._replace(override=AGAIN)
    account = ACCOUNT._replace(override=AGAIN, numbers=(number, RegisteredNumber("4", "", THIRD)))
    without = of_number(f"override to {AGAIN}", "no override", **NOWHERE)
    assert ended(sending(ELSEWHERE), (account,), (number,)) == Plan(
        (without, of_account(f"override to {URL}", "no override"))
    )
    assert ended(sending(ELSEWHERE), (), (number,)) == Plan((without,))
    own = ACCOUNT._replace(override=URL, numbers=(number,))
    subscription = of_account(f"subscribed, with an override to {URL}", "not subscribed", "DELETE")
    assert ended(accounts=(own,)) == Plan((without, subscription, GONE))


def test_the_end_of_a_subscription_with_overrides_elsewhere() -> None:
    """Would end those too, which has to be said."""
    account = ACCOUNT._replace(
        override=ELSEWHERE, numbers=(NUMBER._replace(override=THIRD), RegisteredNumber("4", "", URL))
    )
    steps = (
        PlanStep(
            "number 4", f"override to {URL}", "no override", "POST", "4", {"webhook_configuration": json.dumps(NOWHERE)}
        ),
        of_account(f"subscribed, with an override to {ELSEWHERE}", "not subscribed", "DELETE"),
        GONE,
    )
    of_the_account = (
        f"Account 2 has an override to {ELSEWHERE}, which would go with its subscription: "
        "say --drop-overrides where that is meant, else leave the account out."
    )
    of_the_number = (
        f"Number 3 (+1 555 0100) has an override to {THIRD}, which would get nothing any more "
        "without the app's subscription: say --drop-overrides where that is meant."
    )
    assert ended(accounts=(account,), replace=True) == Plan(steps, (of_the_number, of_the_account))
    alone = ended(accounts=(), numbers=(NUMBER._replace(override=THIRD),))
    assert alone == Plan((GONE,), (of_the_number,))
    assert ended(accounts=(account,), drop_overrides=True) == Plan(steps)
