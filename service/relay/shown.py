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
        metrics: RelayMetrics,
        *,
        now: Callable[[], float],
    ) -> None:
        """*breakers* says how that of each destination stands; *now* is in seconds since the epoch."""
        self._records = records
        self._breakers = breakers
        self._metrics = metrics
        self._now = now

    def refresh(self) -> None:
        """Publish the gauges."""
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
