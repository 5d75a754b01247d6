"""`destinations list`: what goes well, what does not, and when the next attempt is."""

import json
from collections.abc import Mapping, Sequence
from contextlib import closing
from typing import Any, Final

import click

from service import clock
from service.cli import delivery_store
from service.cli.console import Column, Shorten, in_seconds, print_table
from service.cli.events import filters
from service.cli.shared_options import json_lines_option, wide_option
from service.config import InboxUrl
from service.errors import InboxUnavailable
from service.events import rfc3339
from service.storage import engines
from service.storage.deliveries import REPORT_AGE_MS, DeliveryHealth, DestinationStatus, WorkerReport

_COLUMNS: Final = (
    Column("name", least=10),
    Column("state", least=13, shorten=Shorten.END),
    Column("backlog"),
    Column("unread max"),
    Column("oldest"),
    Column("received", optional=True),
    Column("status"),
    Column("next"),
    Column("dead letters", optional=True),
)
NO_RELAY: Final = "no relay runs"


@click.command("list", short_help="List the destinations with state, backlog and next attempt.")
@filters.inbox_option
@wide_option
@json_lines_option
def list_(inbox: str | None, *, wide: bool, as_json: bool) -> None:
    """List each destination with what somebody on call needs.

    \b
    state       ok, failing, misconfigured, disabled, not in the file
    backlog     pending events
    unread max  positions that the relay has not read yet: at most so many
                events join the backlog
    oldest      position of the oldest pending event
    received    when it was received
    status      of the last attempt; none if there was no response
    next        when the relay attempts a delivery again

    A destination that is no longer in the file of WEBHOOK_DESTINATIONS is listed too.

    \b
    whatsapp-webhook destinations list
    """  # noqa: D301  click requires the character
    url = filters.inbox_of(inbox)
    with delivery_store.opened(url) as records:
        statuses = records.statuses()
    last, now = _last_position(url), clock.now_ms()
    if as_json:
        for status in statuses:
            click.echo(json.dumps(_document(status, last)))
        return
    if not statuses:
        click.echo("No destinations yet: no relay has read one from the file of WEBHOOK_DESTINATIONS.")
        return
    print_table(_COLUMNS, [_cells(each, last, now) for each in statuses], wide=wide)


def _last_position(url: InboxUrl) -> int | None:
    """Return the newest position of the log; None if the inbox can't be read."""
    try:
        with closing(engines.open_log(url)) as log:
            return log.last()
    except InboxUnavailable:
        return None


def _document(status: DestinationStatus, last: int | None) -> Mapping[str, Any]:
    reports = [report._asdict() for report in status.reports]
    return status._asdict() | {"reports": reports, "unread_at_most": _unread(status, last)}


def _cells(status: DestinationStatus, last: int | None, now: int) -> Sequence[str]:
    report = _worst([each for each in status.reports if now - each.at < REPORT_AGE_MS])
    return (
        status.name,
        _state_of(status, report),
        str(status.backlog),
        str(_unread(status, last)),
        "" if status.oldest_position is None else str(status.oldest_position),
        rfc3339(status.oldest)[:19] if status.oldest else "",
        _last_status_of(status),
        _next_attempt_of(status, report, now),
        str(status.dead_letters),
    )


def _worst(reports: Sequence[WorkerReport]) -> WorkerReport | None:
    """Return the report of the relay for which deliveries go worst; None if no relay has reported recently."""
    order = (DeliveryHealth.MISCONFIGURED, DeliveryHealth.FAILING, DeliveryHealth.OK)
    return min(reports, key=lambda report: order.index(report.health), default=None)


def _state_of(status: DestinationStatus, report: WorkerReport | None) -> str:
    if status.disabled is not None:
        return f"disabled: {status.disabled}"
    if status.gone_since:
        return f"not in the file since {rfc3339(status.gone_since)[:19]}"
    return NO_RELAY if report is None else str(report.health)


def _unread(status: DestinationStatus, last: int | None) -> int:
    """Return an upper bound of the events that are not planned yet: its filter may exclude them."""
    return 0 if last is None or status.gone_since else max(last - status.position, 0)


def _last_status_of(status: DestinationStatus) -> str:
    if not status.reports or status.reports[0].status is None:
        return ""
    return str(status.reports[0].status or "none")


def _next_attempt_of(status: DestinationStatus, report: WorkerReport | None, now: int) -> str:
    if report is None or status.disabled is not None or status.gone_since or status.next_due is None:
        return ""
    return in_seconds(report.next_probe_at or status.next_due, now)
