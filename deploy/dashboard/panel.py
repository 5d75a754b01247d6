"""What a panel is."""

from dataclasses import dataclass, field
from typing import Final

RED: Final = "red"
ORANGE: Final = "orange"
GREEN: Final = "green"
PLAIN: Final = "text"


@dataclass(frozen=True, kw_only=True)
class Graph:
    """A picture over time; a query is a legend and an expression, in which `OURS` selects what the reader chose."""

    title: str
    tells: str
    unit: str
    queries: dict[str, str]
    limit: float | None = None  # drawn as a line
    colours: dict[str, str] = field(default_factory=dict)  # of the series whose name matches

    kind = "timeseries"
    height = 7


@dataclass(frozen=True, kw_only=True)
class Stat:
    """What is so now, in large; *steps* are the least values of each colour, the first one's is none."""

    title: str
    tells: str
    unit: str
    queries: dict[str, str]
    steps: tuple[tuple[str, float | None], ...] = ((PLAIN, None),)
    none: str = "no data"
    text: str = "auto"

    kind = "stat"
    height = 4


Panel = Graph | Stat
