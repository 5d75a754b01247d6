"""The options that select events, and --inbox."""

import os
import re
from datetime import UTC, datetime
from typing import Final, NamedTuple

import click

from service.cli.load_config import configured
from service.cli.shared_options import option_group
from service.config import InboxUrl, inbox_url
from service.events import Event, matches
from service.meta import webhook_fields
from service.storage import engines


class Filter(NamedTuple):
    """Which events are selected; None selects all. Times are milliseconds since the epoch."""

    kind: str | None
    subject: str | None
    number: str | None
    since: int | None
    until: int | None

    def matches(self, event: Event) -> bool:
        """Return whether *event* is selected."""
        return (
            (self.kind is None or matches(self.kind, event.type))
            and (self.subject is None or event.subject == self.subject.removeprefix("+"))
            and (self.number is None or self.number in event.source.split("/"))
            and (self.since is None or event.received_at >= self.since)
            and (self.until is None or event.received_at < self.until)
        )


EVERYTHING: Final = Filter(None, None, None, None, None)


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


def _filter(kind: str | None, subject: str | None, number: str | None, since: int | None, until: int | None) -> Filter:
    for warning in webhook_fields.unmatched([kind] if kind else []):
        click.echo(f"warning: --type {warning}", err=True)
    return Filter(kind, subject, number, since, until)


filtered = option_group(
    "wanted",
    _filter,
    (
        click.option(
            "--type", "kind", metavar="TYPE", help="Only this type; * matches anything, as in 'com.whatsapp.message.*'."
        ),
        click.option(
            "--subject", metavar="PERSON", help="Only this person: a phone number with country code, or a user id."
        ),
        click.option("--number", metavar="ID", help="Only this business phone number id or account id."),
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
