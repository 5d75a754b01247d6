"""How the destinations stand, as gauges."""

from collections.abc import Callable, Mapping

from service.metrics import RelayMetrics
from service.relay.state import Records


class Shown:
    """Publishes how the destinations of the file stand."""

    def __init__(
        self,
        records: Records,
        breakers: Callable[[], Mapping[str, str]],
        checks: Mapping[str, Callable[[], str | None]],
        metrics: RelayMetrics,
        *,
        now: Callable[[], float],
    ) -> None:
        """*breakers* says how that of each destination stands, *checks* what fails; *now* is in seconds."""
        self._records = records
        self._breakers = breakers
        self._checks = checks
        self._metrics = metrics
        self._now = now

    def refresh(self) -> None:
        """Publish the gauges."""
        for name, check in self._checks.items():
            self._metrics.checked(name, failing=check() is not None)
        breakers, now = self._breakers(), self._now()
        self._metrics.forget_all()
        for standing in self._records.standings():
            if standing.name in breakers:
                self._metrics.stands(
                    standing.name,
                    backlog=standing.owed,
                    oldest=max(now - standing.oldest / 1000, 0) if standing.oldest else 0,
                    breaker=breakers[standing.name],
                    disabled=standing.disabled is not None,
                )
