"""The service of this machine or pod: what it says of itself, what it was asked so far, and what it keeps."""

import json
from collections.abc import Iterable, Iterator, Mapping
from contextlib import ExitStack, closing
from typing import Any, Final, NamedTuple

import urllib3

from service import clock, loopback
from service.config import Config, InboxUrl
from service.deadline import within
from service.doctor.finding import Finding
from service.errors import ConfigurationError, InboxUnavailable
from service.events import Event
from service.meta import catalogue
from service.outcomes import CheckId
from service.storage import engines
from service.telemetry import metrics

MAX_EVENTS_SEARCHED: Final = 500  # events of the inbox in which a real one is looked for
ADMIN_TIMEOUT_SECONDS: Final = 5.0
MAX_ADMIN_RESPONSE_BYTES: Final = 16_777_216  # bytes of an answer
MAX_CLOCK_BEHIND_MS: Final = 60_000  # milliseconds by which another machine's clock may be behind


class Said(NamedTuple):
    """What /readyz and /metrics of the admin listener say."""

    readyz: dict[str, Any]
    page: str

    def outcomes(self, name: str) -> Mapping[str, float]:
        """Give how often each outcome of a counter was."""
        return metrics.outcomes_in(self.page, name)


def ask(config: Config) -> Said | None:
    """Ask the admin listener; None where nobody answers as ours does."""
    base = f"http://{loopback.reachable(config.admin_bind)}"
    try:
        readyz, page = within(
            2 * ADMIN_TIMEOUT_SECONDS, lambda: [_got(f"{base}/{path}") for path in ("readyz", "metrics")]
        )
        found = json.loads(readyz)
    except (urllib3.exceptions.HTTPError, ValueError, TimeoutError, RecursionError):
        return None
    return Said(found, page) if isinstance(found, dict) and isinstance(found.get("checks"), dict) else None


def counted(config: Config, what: str) -> Mapping[str, float]:
    """Give the outcomes of a counter; none where it can't be asked."""
    said = ask(config)
    return said.outcomes(what) if said else {}


def _got(url: str) -> str:
    answer = urllib3.request(
        "GET", url, timeout=ADMIN_TIMEOUT_SECONDS, retries=False, preload_content=False, decode_content=False
    )
    return answer.read(MAX_ADMIN_RESPONSE_BYTES).decode()


def readiness(said: Said) -> Iterator[Finding]:
    """Say what keeps it from being ready."""
    failing = {name: check.get("why", "") for name, check in said.readyz["checks"].items() if not check.get("ok")}
    for name, why in failing.items():
        yield Finding.wrong(
            CheckId.SERVICE,
            f"Not ready: {name}: {why}",
            f"As it says; until then notifications are answered 503. docs/runbook.md has more on {name}.",
        )
    if not failing:
        yield Finding.ok(CheckId.SERVICE, "Ready, as /readyz says.")


def history(said: Said, *, is_real: bool) -> Finding:
    """Say what was asked of it since its start; *is_real*: the inbox holds something that is no test."""
    taken, greeted = said.outcomes("notifications"), said.outcomes("handshakes")
    accepted, forged = taken.get("accepted", 0), taken.get("bad_signature", 0)
    verified, refused = greeted.get("verified", 0), sum(greeted.values()) - greeted.get("verified", 0)
    if forged and not is_real:
        return Finding.unknown(
            CheckId.SO_FAR,
            f"The signature of {forged:.0f} notifications was refused, and nothing real is in the inbox.",
            "If they were Meta's, and not of `simulate`, `helm test` or another doctor: the app secret is another "
            "app's, or something changes bodies on the way. `doctor --signature FILE` says which, for a request that "
            "was caught.",
        )
    if greeted.get("wrong_token", 0) and not verified and not is_real:
        return Finding.unknown(
            CheckId.SO_FAR,
            f"{greeted['wrong_token']:.0f} handshakes came with a verify token that is not in force.",
            "If they were Meta's: enter there what line 1 of verify-token holds. `subscribe` does.",
        )
    counts = f"Notifications: {accepted:.0f} accepted, {forged:.0f} with a bad signature. "
    return Finding.ok(CheckId.SO_FAR, counts + f"Handshakes: {verified:.0f} verified, {refused:.0f} refused.")


class Kept:
    """The inbox, read from beside: what came since this was opened, and whether something real is in it."""

    def __init__(self, url: InboxUrl) -> None:
        """Raise InboxUnavailable or ConfigurationError where it can't be read."""
        self._stack = ExitStack()
        self._log, self._stream = None, None
        self._since = clock.now_ms() - MAX_CLOCK_BEHIND_MS
        self._last = 0
        if open_stream := engines.load(url).open_stream:
            self._stream = self._stack.enter_context(closing(open_stream(url)))
        else:
            self._log = self._stack.enter_context(closing(engines.open_log(url)))
            self._last = self._log.last()

    def close(self) -> None:
        """Let go of it."""
        self._stack.close()

    def has(self, messages: Iterable[str]) -> bool:
        """Say whether messages with these ids came since this was opened. Raises InboxUnavailable."""
        left = set(messages)
        for event in self._newer():
            left -= {message for message in left if message in event.id}
            if not left:
                break
        return not left

    def newest_real(self) -> Event | None:
        """Give the newest event that is no test, nor `simulate`'s; None for none. Raises InboxUnavailable."""
        if self._stream is not None:
            newest = [placed.event for placed in self._stream.newest(MAX_EVENTS_SEARCHED)]
        elif self._log is not None:
            newest = [
                record.event
                for record in self._log.read(max(self._last - MAX_EVENTS_SEARCHED, 0), MAX_EVENTS_SEARCHED, data=False)
            ]
        return next(
            (event for event in reversed(newest) if not event.test and not catalogue.is_made(event.source)), None
        )

    def _newer(self) -> Iterator[Event]:
        if self._stream is not None:
            yield from (placed.event for placed in self._stream.since(self._since))
        position = self._last
        while self._log is not None and (page := self._log.read(position, MAX_EVENTS_SEARCHED, data=False)):
            yield from (record.event for record in page)
            position = page[-1].position


def opened(url: InboxUrl) -> Kept | str:
    """Open the inbox for reading, or say why that can't be."""
    try:
        return Kept(url)
    except InboxUnavailable as ex:
        return ex.detail
    except ConfigurationError as ex:
        return " ".join(ex.problems)
