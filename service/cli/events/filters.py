"""The options that select events, and --inbox."""

import os
import re
from datetime import UTC, datetime
from typing import Final, NamedTuple

import click

from service.cli.load_config import configured
from service.cli.shared_options import option_group
from service.config import InboxUrl, inbox_url
from service.events import Event
from service.events.event_filter import EventFilter
from service.meta import webhook_fields
from service.storage import engines, people
from service.storage.people import PersonIdentifiers
from service.storage.protocols import LogEvents


class Filter(NamedTuple):
    """Which events are selected; None selects all. Times are milliseconds since the epoch."""

    events: EventFilter
    person: PersonIdentifiers | None = None
    since: int | None = None
    until: int | None = None

    def matches(self, event: Event, position: int | None = None) -> bool:
        """Return whether *event* is selected; its *position* tells whose a number was."""
        return (
            self.events.selects(event)
            and (self.person is None or self.person.has(event, position))
            and (self.since is None or event.received_at >= self.since)
            and (self.until is None or event.received_at < self.until)
        )

    def in_log(self, log: LogEvents) -> "Filter":
        """Return this filter for a log: the person with all identifiers that its events tell."""
        return (
            self._replace(person=people.find(self.person.identifier, log.appearances).person) if self.person else self
        )


EVERYTHING: Final = Filter(EventFilter())


class Moment(click.ParamType[int]):
    """A time: RFC 3339, or an age such as 15m, 2h or 3d."""

    name = "time"

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> int:
        """Return milliseconds since the epoch."""
        text = str(value)
        age = re.fullmatch(r"([0-9]{1,9})([smhd])", text)
        if age:
            seconds = int(age[1]) * {"s": 1, "m": 60, "h": 3600, "d": 86400}[age[2]]
            return int((datetime.now(UTC).timestamp() - seconds) * 1000)
        try:
            parsed = datetime.fromisoformat(text)
        except (ValueError, OverflowError):
            self.fail(
                f"{text!r} is not a time: write 2026-11-23T10:00:00Z, or an age such as 15m, 2h or 3d.", param, ctx
            )
        return int((parsed if parsed.tzinfo else parsed.replace(tzinfo=UTC)).timestamp() * 1000)


def inbox_of(value: str | None) -> InboxUrl:
    """Return the inbox of `--inbox`, or that of the configuration if it is not given."""
    if value is None:
        return configured(os.environ).inbox
    try:
        url = inbox_url(value)
    except ValueError as ex:
        raise click.BadParameter(f"it {ex}.", param_hint="--inbox") from ex
    if problems := engines.problems(url):
        raise click.BadParameter(problems[0].replace("WEBHOOK_INBOX", "it", 1), param_hint="--inbox")
    return url


def _filter(
    types: tuple[str, ...],
    not_types: tuple[str, ...],
    fields: tuple[str, ...],
    numbers: tuple[str, ...],
    accounts: tuple[str, ...],
    groups: str | None,
    direction: str | None,
    subject: str | None,
    since: int | None,
    until: int | None,
) -> Filter:
    for option, patterns in (("--type", types), ("--not-type", not_types)):
        for warning in webhook_fields.unmatched(patterns):
            click.echo(f"warning: {option} {warning}", err=True)
    events = EventFilter.model_validate(
        {
            "types": list(types),
            "notTypes": list(not_types),
            "fields": list(fields),
            "phoneNumberIds": list(numbers),
            "accounts": list(accounts),
            "groups": groups,
            "direction": direction,
        }
    )
    return Filter(events, people.named(subject) if subject else None, since, until)


filtered = option_group(
    "wanted",
    _filter,
    (
        click.option(
            "--type",
            "types",
            metavar="TYPE",
            multiple=True,
            help="Only this type and those below it; * matches anything, as in 'com.whatsapp.message.*'. "
            "Can be repeated.",
        ),
        click.option(
            "--not-type",
            "not_types",
            metavar="TYPE",
            multiple=True,
            help="Not this type, such as com.whatsapp.history.",
        ),
        click.option(
            "--field", "fields", metavar="NAME", multiple=True, help="Only this webhook field of Meta's, such as calls."
        ),
        click.option(
            "--number",
            "numbers",
            metavar="ID",
            multiple=True,
            help="Only this business phone number id, such as 106540352242922.",
        ),
        click.option(
            "--account", "accounts", metavar="ID", multiple=True, help="Only this account, such as 102290129340398."
        ),
        click.option(
            "--groups",
            type=click.Choice(("only", "none")),
            help="Only events of groups, or none of them: --groups none.",
        ),
        click.option(
            "--direction",
            type=click.Choice(("inbound", "outbound")),
            help="Only what people wrote (inbound), or the business: --direction inbound.",
        ),
        click.option(
            "--subject",
            metavar="PERSON",
            help="Only this person: a phone number with country code, or a user id. SQLite and PostgreSQL also find "
            "the person's other numbers and user ids.",
        ),
        click.option(
            "--since", type=Moment(), help="Received at or after this: 2026-11-23T10:00:00Z, or an age: 15m, 2h, 3d."
        ),
        click.option("--until", type=Moment(), help="Received before this; same format as --since."),
    ),
)
inbox_option = click.option(
    "--inbox",
    metavar="URL",
    help="Use this inbox instead of that of WEBHOOK_INBOX, such as sqlite:///var/lib/whatsapp-webhook/inbox.db.",
)
