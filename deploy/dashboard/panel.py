"""The two kinds of panels: a graph over time, and a value now."""

from dataclasses import dataclass, field
from typing import Final

RED: Final = "red"
ORANGE: Final = "orange"
GREEN: Final = "green"
PLAIN: Final = "text"


@dataclass(frozen=True, kw_only=True)
class Graph:
    """A graph over time; *queries* maps legends to expressions, in which `OURS` selects the chosen pods."""

    title: str
    description: str
    unit: str
    queries: dict[str, str]
    limit: float | None = None  # drawn as a dashed line
    colours: dict[str, str] = field(default_factory=dict)  # by a pattern of series names

    kind = "timeseries"
    height = 7


@dataclass(frozen=True, kw_only=True)
class Stat:
    """A value now, in large type; *steps* are pairs of a colour and its lowest value, the first one's is None."""

    title: str
    description: str
    unit: str
    queries: dict[str, str]
    steps: tuple[tuple[str, float | None], ...] = ((PLAIN, None),)
    none: str = "no data"
    text: str = "auto"

    kind = "stat"
    height = 4


Panel = Graph | Stat
