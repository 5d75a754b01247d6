"""Runs the checks in their order, each with what those before it have found out."""

from collections.abc import Iterator
from contextlib import closing, nullcontext

from service.doctor.check_table import CHECKS
from service.doctor.checks import local_instance
from service.doctor.checks.local_instance import Kept
from service.doctor.evidence import Circumstances, Evidence
from service.doctor.finding import Finding
from service.errors import InboxUnavailable
from service.events import rfc3339


def diagnose(about: Circumstances) -> Iterator[Finding]:
    """Yield what every check finds that can run from here."""
    said = local_instance.ask(about.config)
    kept = local_instance.opened(about.config.inbox) if said else ""
    with closing(kept) if isinstance(kept, Kept) else nullcontext():
        known = Evidence(about=about, said=said, kept=kept, real=_real(kept) if isinstance(kept, Kept) else None)
        for check in CHECKS:
            if check.run and check.needs(known):
                findings, known = check.run(known)
                yield from findings


def _real(kept: Kept) -> str | None:
    """Return a sentence about an event that is no test; None if there is none."""
    try:
        event = kept.newest_real()
    except InboxUnavailable:
        return None
    return f"something real came, at {rfc3339(event.received_at)[:19]}Z." if event else None
