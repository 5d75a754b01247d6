"""Runs the checks in order, each with the results of those before it."""

from collections.abc import Iterator
from contextlib import closing, nullcontext

from service.doctor.check_table import CHECKS
from service.doctor.checks import local_instance
from service.doctor.checks.local_instance import InboxReader
from service.doctor.evidence import Circumstances, Evidence
from service.doctor.finding import Finding
from service.errors import InboxUnavailable
from service.events import rfc3339


def diagnose(about: Circumstances) -> Iterator[Finding]:
    """Run every check that can be made from here, and yield its findings."""
    admin = local_instance.ask(about.config)
    reader = local_instance.open_inbox(about.config.inbox) if admin else ""
    with closing(reader) if isinstance(reader, InboxReader) else nullcontext():
        known = Evidence(
            about=about,
            admin=admin,
            inbox=reader,
            real_event=_real_event(reader) if isinstance(reader, InboxReader) else None,
        )
        for check in CHECKS:
            if check.run and check.needs(known):
                findings, known = check.run(known)
                yield from findings


def _real_event(reader: InboxReader) -> str | None:
    """Return a sentence about the newest event that is not a test; None if there is none."""
    try:
        event = reader.newest_real()
    except InboxUnavailable:
        return None
    return f"a real event was received at {rfc3339(event.received_at)[:19]}Z." if event else None
