"""The service on this machine or in this pod: its readiness, its counters and its inbox."""

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

MAX_EVENTS_SEARCHED: Final = 500  # newest events of the inbox that are searched for a real one
ADMIN_TIMEOUT_SECONDS: Final = 5.0
MAX_ADMIN_RESPONSE_BYTES: Final = 16_777_216
MAX_CLOCK_BEHIND_MS: Final = 60_000  # by which another machine's clock may be behind


class AdminResponses(NamedTuple):
    """The responses of the admin listener's /readyz and /metrics."""

    readyz: dict[str, Any]
    metrics_page: str

    def outcomes(self, name: str) -> Mapping[str, float]:
        """Return the count of each outcome of a counter."""
        return metrics.outcomes_in(self.metrics_page, name)


def ask(config: Config) -> AdminResponses | None:
    """Fetch /readyz and /metrics from the admin listener; return None if our service does not answer there."""
    base = f"http://{loopback.reachable(config.admin_bind)}"
    try:
        readyz, page = within(
            2 * ADMIN_TIMEOUT_SECONDS, lambda: [_fetch(f"{base}/{path}") for path in ("readyz", "metrics")]
        )
        document = json.loads(readyz)
    except (urllib3.exceptions.HTTPError, ValueError, TimeoutError, RecursionError):
        return None
    is_ours = isinstance(document, dict) and isinstance(document.get("checks"), dict)
    return AdminResponses(document, page) if is_ours else None


def counted(config: Config, counter: str) -> Mapping[str, float]:
    """Return the count of each outcome of a counter; nothing if the admin listener does not answer."""
    admin = ask(config)
    return admin.outcomes(counter) if admin else {}


def _fetch(url: str) -> str:
    response = urllib3.request(
        "GET", url, timeout=ADMIN_TIMEOUT_SECONDS, retries=False, preload_content=False, decode_content=False
    )
    return response.read(MAX_ADMIN_RESPONSE_BYTES).decode()


def readiness(admin: AdminResponses) -> Iterator[Finding]:
    """Yield each readiness check that fails."""
    failing = {name: check.get("why", "") for name, check in admin.readyz["checks"].items() if not check.get("ok")}
    for name, why in failing.items():
        yield Finding.wrong(
            CheckId.SERVICE,
            f"Not ready: {name}: {why}",
            f"Fix what it reports; until then notifications are answered 503. See docs/runbook.md about {name}.",
        )
    if not failing:
        yield Finding.ok(CheckId.SERVICE, "/readyz reports ready.")


def counters(admin: AdminResponses, *, is_real: bool) -> Finding:
    """Report the notifications and handshakes since the start; *is_real*: the inbox has an event that is not a test."""
    notifications, handshakes = admin.outcomes("notifications"), admin.outcomes("handshakes")
    accepted, forged = notifications.get("accepted", 0), notifications.get("bad_signature", 0)
    verified = handshakes.get("verified", 0)
    refused = sum(handshakes.values()) - verified
    if forged and not is_real:
        return Finding.unknown(
            CheckId.COUNTERS,
            f"{forged:.0f} notifications were refused for a bad signature, and the inbox contains no real event.",
            "If they came from Meta, and not from `simulate`, `helm test` or another doctor: the app secret is another "
            "app's, or something changes bodies on the way. Capture a request, and run `whatsapp-webhook doctor "
            "--signature FILE` to find out which.",
        )
    if handshakes.get("wrong_token", 0) and not verified and not is_real:
        return Finding.unknown(
            CheckId.COUNTERS,
            f"{handshakes['wrong_token']:.0f} handshakes were refused for a wrong verify token.",
            "If they came from Meta, enter line 1 of verify-token there; `whatsapp-webhook subscribe` does that.",
        )
    return Finding.ok(
        CheckId.COUNTERS,
        f"Since the start: {accepted:.0f} notifications accepted, {forged:.0f} with a bad signature; "
        f"{verified:.0f} handshakes verified, {refused:.0f} refused.",
    )


class InboxReader:
    """Reads the inbox of the service: the events since this was opened, and whether a real one is in it."""

    def __init__(self, url: InboxUrl) -> None:
        """Raise InboxUnavailable or ConfigurationError if the inbox can't be read."""
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
        """Close the inbox."""
        self._stack.close()

    def has(self, messages: Iterable[str]) -> bool:
        """Return whether messages with these ids were stored since this was opened. Raises InboxUnavailable."""
        missing = set(messages)
        for event in self._newer():
            missing -= {message for message in missing if message in event.id}
            if not missing:
                break
        return not missing

    def newest_real(self) -> Event | None:
        """Return the newest event that is neither a test nor from `simulate`, if any. Raises InboxUnavailable."""
        if self._stream is not None:
            newest = [placed.event for placed in self._stream.newest(MAX_EVENTS_SEARCHED)]
        elif self._log is not None:
            newest = [
                record.event
                for record in self._log.read(max(self._last - MAX_EVENTS_SEARCHED, 0), MAX_EVENTS_SEARCHED, data=False)
            ]
        return next(
            (event for event in reversed(newest) if not event.test and not catalogue.is_simulated(event.source)), None
        )

    def _newer(self) -> Iterator[Event]:
        if self._stream is not None:
            yield from (placed.event for placed in self._stream.since(self._since))
        position = self._last
        while self._log is not None and (page := self._log.read(position, MAX_EVENTS_SEARCHED, data=False)):
            yield from (record.event for record in page)
            position = page[-1].position


def open_inbox(url: InboxUrl) -> InboxReader | str:
    """Open the inbox for reading, or return why it can't be opened."""
    try:
        return InboxReader(url)
    except InboxUnavailable as ex:
        return ex.detail
    except ConfigurationError as ex:
        return " ".join(ex.problems)
