"""Checks twice per second what may change while the receiver runs: credentials, the drain mark, gauges."""

import threading
import time
from collections.abc import Callable
from typing import Final

from service.config import Config
from service.credentials import APP_SECRET, VERIFY_TOKEN, Credentials, CredentialsDirectory, weak_verify_tokens
from service.receiver import drain_mark
from service.reloading import Report
from service.telemetry import logs
from service.telemetry.metrics import CredentialMetrics

RELOAD_INTERVAL_SECONDS: Final = 0.5


class ReloadThread:
    """A thread that reloads the credentials and the drain mark, and their last values."""

    def __init__(self, config: Config, metrics: CredentialMetrics, refresh: Callable[[], None]) -> None:
        """*refresh* publishes the gauges of the other parts."""
        self._directory = CredentialsDirectory(config.credentials_dir, hint=config.credentials_hint)
        self._run_dir = config.run_dir
        self._metrics = metrics
        self._refresh = refresh
        self._log = logs.get("credentials")
        self._report = Report(self._log, "credentials")
        self._draining = False
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._run, name="reload", daemon=True)
        self.rate_limited_log = logs.RateLimitedLog(logs.get("webhook"))
        self.keyed_hasher = logs.KeyedHasher()

    def start(self) -> None:
        """Load everything once, then start the thread."""
        self._metrics.changed(0, **{VERIFY_TOKEN: 0, APP_SECRET: 0})  # until they are loaded, the metric shows 0
        self._reload()
        self._thread.start()

    def stop(self) -> None:
        """Stop the thread, and log the summaries of rate-limited lines."""
        self._stopped.set()
        self._thread.join()
        self.rate_limited_log.flush(force=True)

    def credentials(self) -> Credentials:
        """Return the accepted credentials."""
        return self._directory.current

    def missing(self) -> str | None:
        """Return which credentials are missing; None if none are."""
        return self._directory.missing

    def draining(self) -> str | None:
        """Return that this instance is draining; None if it is not."""
        return "draining: send new connections elsewhere" if self._draining else None

    def _run(self) -> None:
        while not self._stopped.wait(RELOAD_INTERVAL_SECONDS):
            try:
                self._reload()
            except Exception as ex:  # noqa: BLE001  without this thread the credentials would never change again
                self._log.error("reload failed", exc_info=ex)

    def _reload(self) -> None:
        self._reload_credentials()
        marked = drain_mark.is_marked(self._run_dir)
        if marked and not self._draining:
            logs.get("server").info("draining")
        self._draining = marked
        self.rate_limited_log.flush()
        self._refresh()

    def _reload_credentials(self) -> None:
        before = self._directory.current
        if self._directory.look():
            now = self._directory.current
            if now.log_key != before.log_key:
                self.keyed_hasher.set_key(now.log_key)
            tokens, secrets = len(now.verify_tokens), len(now.app_secrets)
            self._metrics.changed(time.time(), **{VERIFY_TOKEN: tokens, APP_SECRET: secrets})
            self._log.info("credentials changed", verify_tokens=tokens, app_secrets=secrets)
            if weaknesses := weak_verify_tokens(now.verify_tokens):
                hint = "generate one with `openssl rand -hex 16`, and set the same value in Meta's app settings"
                self._log.warning("weak verify token", problems=list(weaknesses), hint=hint)
        self._metrics.stale(stale=self._directory.stale)
        hint = " ".join(filter(None, [self._directory.others, self._directory.missing and self._directory.hint]))
        self._report.update(
            self._directory.problems,
            level="warning",
            action="using the last good values" if self._directory.stale else "waiting for valid files",
            **({"hint": hint} if hint else {}),
        )
