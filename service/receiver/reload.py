"""What may change while the receiver runs, looked at twice a second: credentials, the drain mark, gauges."""

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
    """A thread that looks, and what it saw last."""

    def __init__(self, config: Config, metrics: CredentialMetrics, refresh: Callable[[], None]) -> None:
        """*refresh* publishes the gauges of the other parts."""
        self._directory = CredentialsDirectory(config.credentials_dir, hint=config.credentials_hint)
        self._run_dir = config.run_dir
        self._metrics = metrics
        self._refresh = refresh
        self._log = logs.get("credentials")
        self._report = Report(self._log, "credentials")
        self._draining = False
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._run, name="watch", daemon=True)
        self.floods = logs.Floods(logs.get("webhook"))
        self.pseudonyms = logs.Pseudonyms()

    def start(self) -> None:
        """Look once, then go on in the thread."""
        self._metrics.changed(0, **{VERIFY_TOKEN: 0, APP_SECRET: 0})  # so that what is awaited is seen to be missing
        self._look()
        self._thread.start()

    def stop(self) -> None:
        """End the thread; what floods held back is written."""
        self._over.set()
        self._thread.join()
        self.floods.flush(force=True)

    def credentials(self) -> Credentials:
        """Give what is in force."""
        return self._directory.current

    def missing(self) -> str | None:
        """Say what is awaited before anything can be verified."""
        return self._directory.missing

    def draining(self) -> str | None:
        """Say that this instance was told to drain."""
        return "told to drain: send new connections elsewhere" if self._draining else None

    def _run(self) -> None:
        while not self._over.wait(RELOAD_INTERVAL_SECONDS):
            try:
                self._look()
            except Exception as ex:  # noqa: BLE001  a thread that ended would freeze the credentials
                self._log.error("looking failed", exc_info=ex)

    def _look(self) -> None:
        self._look_at_credentials()
        marked = drain_mark.is_marked(self._run_dir)
        if marked and not self._draining:
            logs.get("server").info("draining")
        self._draining = marked
        self.floods.flush()
        self._refresh()

    def _look_at_credentials(self) -> None:
        before = self._directory.current
        if self._directory.look():
            now = self._directory.current
            if now.log_key != before.log_key:
                self.pseudonyms.use(now.log_key)
            tokens, secrets = len(now.verify_tokens), len(now.app_secrets)
            self._metrics.changed(time.time(), **{VERIFY_TOKEN: tokens, APP_SECRET: secrets})
            self._log.info("credentials changed", verify_tokens=tokens, app_secrets=secrets)
            if weaknesses := weak_verify_tokens(now.verify_tokens):
                hint = "make one with `openssl rand -hex 16`, and enter the same at Meta"
                self._log.warning("weak verify token", problems=list(weaknesses), hint=hint)
        self._metrics.stale(stale=self._directory.stale)
        hint = " ".join(filter(None, [self._directory.others, self._directory.missing and self._directory.hint]))
        self._report.update(
            self._directory.problems,
            level="warning",
            action="keeping the last good values" if self._directory.stale else "waiting for them",
            **({"hint": hint} if hint else {}),
        )
