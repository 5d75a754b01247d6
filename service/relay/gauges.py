"""The gauges of the relay's checks and destinations."""

from collections.abc import Callable, Mapping

from service.errors import InboxUnavailable
from service.instruments import Instruments
from service.storage.deliveries import DeliveryAdmin
from service.telemetry.metrics import RelayMetrics


class RelayGauges:
    """Publishes the state of each check, and of each destination of the file."""

    def __init__(
        self,
        records: DeliveryAdmin,
        breakers: Callable[[], Mapping[str, str]],
        checks: Mapping[str, Callable[[], str | None]],
        instruments: Instruments[RelayMetrics],
    ) -> None:
        """*breakers* returns the state of each destination's circuit breaker; a check returns its problem or None."""
        self._records = records
        self._breakers = breakers
        self._checks = checks
        self._metrics = instruments.metrics
        self._now_ms = instruments.now_ms

    def refresh(self) -> None:
        """Publish the gauges."""
        for name, check in self._checks.items():
            self._metrics.checked(name, failing=check() is not None)
        breakers, now = self._breakers(), self._now_ms()
        try:
            statuses = self._records.statuses()
        except InboxUnavailable:  # the check `inbox` reports it
            return
        self._metrics.forget_all()
        for status in statuses:
            if status.gone_since is None:
                self._metrics.stands(
                    status.name,
                    backlog=status.backlog,
                    oldest=max(now - status.oldest, 0) / 1000 if status.oldest else 0,
                    breaker=breakers.get(status.name, "open"),  # without a secret there are no attempts
                    disabled=status.disabled is not None,
                )
