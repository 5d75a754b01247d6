"""Draws docs/dashboard.png from the dashboard's own queries: `make picture`.

A real Prometheus scrapes a running receiver and relay for five minutes: varying load, every kind of notification that
`simulate` sends, a rotation of the credentials, and a destination that is down for a minute. There is no Grafana: the
picture shows the results of the queries in the dashboard's order, not its looks.
"""

import math
import random
import re
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import dashboard
import matplotlib as mpl
from matplotlib import pyplot as plt
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MultipleLocator

from tests.chart.prometheus import Prometheus, scraping
from tests.support.destination import OK, Request, destination
from tests.support.relaying import Relay, write
from tests.support.server import Server

FILE = Path(__file__).parents[2] / "docs" / "dashboard.png"
RATES = (20, 60, 150, 60, 20)  # notifications per second, one phase each
PHASE_SECONDS = 60
OUTAGE_SECONDS = (100, 130)  # of the play, in which the destination answers 503
ERROR_SHARE = 0.02  # of the destination's other responses
STEP_SECONDS = 2.0  # between two points
GRID_WIDTH = 24  # of the dashboard, in its units
UNIT_WIDTH_INCHES = 0.5
UNIT_HEIGHT_INCHES = 0.29
ROW_TITLE_UNITS = 1.4
TITLE_UNITS = 1.25  # above a panel's axes
TICKS_UNITS = 0.95  # below them
MARGIN_UNITS = 0.3
Y_LABELS_UNITS = 1.65  # left of a graph's axes
LEGEND_UNITS, LEGEND_UNITS_PER_CHARACTER = 1.0, 0.145  # right of them
NARROW_UNITS = 6  # a panel of this width has few ticks
LEGEND_ENTRIES = 6
LEGEND_CHARACTERS = 19
FONT_POINTS = 9
DPI = 100
SHOWN_COLOURS = 128  # of the PNG's palette
BACKGROUND, PANEL_BACKGROUND, GRID, FAINT = "#111217", "#181b1f", "#34373d", "#b0b3ba"
LINE_COLOURS = ["#8ab8ff", "#ffcb7d", "#b877d9", "#6ed0e0", "#fade2a", "#ff7383"]
COLOURS = {"red": "#f2495c", "orange": "#ff9830", "green": "#73bf69", "text": "#ffffff"}
THOUSAND = 1_000


class Series(NamedTuple):
    """One line of a graph, or one value of a stat."""

    name: str
    minutes: list[float]
    values: list[float]

    @property
    def peak(self) -> float:
        """Return the largest value, 0 if there is none."""
        return max((value for value in self.values if not math.isnan(value)), default=0.0)


def play(server: Server) -> None:
    """Send varying load, every kind of notification once per phase, and rotate both credentials in the middle."""
    command = [sys.executable, "-m", "service", "simulate", f"http://127.0.0.1:{server.port}/webhooks"]
    command += ["--credentials", str(server.credentials)]
    for phase, rate in enumerate(RATES):
        arguments = ["--rate", str(rate), "--duration", str(PHASE_SECONDS)]
        load = subprocess.Popen([*command, *arguments], stdout=subprocess.DEVNULL)
        time.sleep(PHASE_SECONDS / 2)
        if phase == len(RATES) // 2:
            server.write_credentials(f"new-token\n{server.token}", f"new-secret-of-the-app\n{server.secret}")
        subprocess.run(command, check=False, stdout=subprocess.DEVNULL)
        load.wait()


class Application:
    """A destination that answers 503 during an outage, otherwise 200, and 500 now and then."""

    def __init__(self) -> None:
        self.started = math.inf  # the start of the play, by the monotonic clock

    def __call__(self, _request: Request, client: socket.socket) -> None:
        """Respond to one request."""
        first, last = OUTAGE_SECONDS
        is_down = first <= time.monotonic() - self.started < last
        time.sleep(0.002)
        failure = b"503 X" if is_down else b"500 X"
        client.sendall(OK.replace(b"200 OK", failure) if is_down or random.random() < ERROR_SHARE else OK)


@contextmanager
def played() -> Iterator[tuple[Prometheus, float, float]]:
    """Yield a Prometheus that has scraped everything, and the start and end of that time (Unix time)."""
    application = Application()
    with tempfile.TemporaryDirectory() as name, destination(application) as app:
        write(Path(name), {"url": f"http://127.0.0.1:{app.port}/", "name": "bot"})
        with Server(Path(name)) as server, Relay(Path(name)) as relay:
            yield from scraped(Path(name), server, relay, application)


def scraped(
    directory: Path, server: Server, relay: Relay, application: Application
) -> Iterator[tuple[Prometheus, float, float]]:
    """Scrape receiver and relay while the load is played."""
    targets = [
        {"targets": [f"127.0.0.1:{port}"], "labels": {"namespace": "here", "pod": "wh-0", "container": container}}
        for container, port in (("receiver", server.admin_port), ("relay", relay.port))
    ]
    job = {"job_name": "here/wh", "static_configs": targets}
    with scraping(directory / "prometheus", [job], {"groups": []}) as prometheus:
        started, application.started = time.time(), time.monotonic()
        play(server)
        yield prometheus, started, time.time()


def draw(prometheus: Prometheus, started: float, ended: float) -> None:
    """Write the picture: each panel where the dashboard has it."""
    plt.style.use("dark_background")
    mpl.rcParams.update(
        {
            "font.size": FONT_POINTS,
            "axes.titlesize": FONT_POINTS + 1,
            "axes.edgecolor": GRID,
            "grid.color": GRID,
            "grid.linewidth": 0.6,
        }
    )
    mpl.rcParams["axes.prop_cycle"] = mpl.cycler(color=LINE_COLOURS)
    panels = dashboard.dashboard()["panels"]
    rows = [panel for panel in panels if panel["type"] == "row"]
    height = max(panel["gridPos"]["y"] + panel["gridPos"]["h"] for panel in panels)
    height += (ROW_TITLE_UNITS - 1) * len(rows)
    figure = plt.figure(figsize=(GRID_WIDTH * UNIT_WIDTH_INCHES, height * UNIT_HEIGHT_INCHES), facecolor=BACKGROUND)
    shift = 0.0  # row titles are higher here than there
    for panel in panels:
        place = panel["gridPos"]
        if panel["type"] == "row":
            y = 1 - (place["y"] + shift + ROW_TITLE_UNITS * 0.6) / height
            figure.text(0.006, y, panel["title"], fontsize=13, fontweight="bold", va="center")
            shift += ROW_TITLE_UNITS - 1
            continue
        is_stat = panel["type"] == "stat"
        window = f"{len(RATES) * PHASE_SECONDS}s" if is_stat else "20s"
        series = list(_series(prometheus, panel, ended if is_stat else started, ended, window))
        drawn = sorted((each for each in series if each.peak > 0), key=lambda each: -each.peak)
        notes = [] if is_stat else _notes(series, drawn)
        names = [_shortened(each.name) for each in drawn[:LEGEND_ENTRIES]]
        characters = 0 if is_stat else max(map(len, [*names, *notes]), default=0)
        axes = _axes(figure, panel, characters, top=place["y"] + shift, height=height)
        axes.set_title(panel["title"], loc="left", pad=5)
        if is_stat:
            _draw_values(axes, panel, series)
        else:
            _draw_lines(axes, panel, drawn, notes)
    figure.savefig(FILE, dpi=DPI)
    _reduce_colours()


def _axes(figure: Figure, panel: dict[str, Any], characters: int, *, top: float, height: float) -> Axes:
    """Return axes in the panel's place, with room for its title, ticks and a legend of so many characters."""
    left, width, high = (panel["gridPos"][key] for key in "xwh")
    before, after, below = MARGIN_UNITS, MARGIN_UNITS, MARGIN_UNITS
    if panel["type"] != "stat":
        before, below = Y_LABELS_UNITS, TICKS_UNITS
        after = LEGEND_UNITS + LEGEND_UNITS_PER_CHARACTER * characters
    box = (
        (left + before) / GRID_WIDTH,
        1 - (top + high - below) / height,
        (width - before - after) / GRID_WIDTH,
        (high - TITLE_UNITS - below) / height,
    )
    return figure.add_axes(box, facecolor=PANEL_BACKGROUND)


def _reduce_colours() -> None:
    from PIL import Image  # noqa: PLC0415  matplotlib's own dependency

    with Image.open(FILE) as picture:
        reduced = picture.convert("RGB").quantize(SHOWN_COLOURS, dither=Image.Dither.NONE)
    reduced.save(FILE, optimize=True)


def _series(
    prometheus: Prometheus, panel: dict[str, Any], started: float, ended: float, window: str
) -> Iterator[Series]:
    for target in panel["targets"]:
        query = prometheus.as_grafana_asks(target["expr"], window)
        span = {"start": str(started), "end": str(ended), "step": str(STEP_SECONDS)}
        for result in prometheus.get("query_range", query=query, **span)["result"]:
            labels, legend = result["metric"], target["legendFormat"].replace("__auto", "")
            points = [(float(at), float(value)) for at, value in result["values"]]
            name = re.sub(r"{{(\w+)}}", lambda label, labels=labels: labels.get(label[1], ""), legend)
            yield Series(name, [(at - started) / 60 for at, _ in points], [value for _, value in points])


def _notes(series: list[Series], drawn: list[Series]) -> list[str]:
    """Return what the legend says about series that it does not name."""
    more, zeros = len(drawn) - LEGEND_ENTRIES, len(series) - len(drawn)
    if not drawn:
        return []
    return [f"and {more} more"] * (more > 0) + [f"{zeros} {'others' if zeros > 1 else 'other'}: 0"] * (zeros > 0)


def _draw_lines(axes: Axes, panel: dict[str, Any], drawn: list[Series], notes: list[str]) -> None:
    """Draw the series that are not 0 all the time, and a legend right of the plot."""
    unit = panel["fieldConfig"]["defaults"]["unit"]
    for each in drawn:
        axes.plot(each.minutes, each.values, label=_shortened(each.name), linewidth=1.3, color=_colour(panel, each))
    minutes = len(RATES) * PHASE_SECONDS / 60
    highest = max((each.peak for each in drawn), default=1.0)
    axes.set_xlim(0, minutes)
    axes.set_ylim(0, highest * 1.08)
    axes.yaxis.set_major_locator(MultipleLocator(_tick_step(highest, unit)))
    axes.yaxis.set_major_formatter(lambda value, _: _with_unit(value, unit))
    axes.xaxis.set_major_locator(MultipleLocator(1 if panel["gridPos"]["w"] > NARROW_UNITS else minutes / 2))
    axes.xaxis.set_major_formatter(lambda value, _: f"{value:g} min" if value == minutes else f"{value:g}")
    axes.tick_params(length=0, labelcolor=FAINT)
    axes.grid(visible=True)
    if not drawn:
        axes.set_yticks([0])
        axes.text(0.5, 0.5, "all: 0", transform=axes.transAxes, ha="center", va="center", color=FAINT)
        return
    lines, names = axes.get_legend_handles_labels()
    shown = lines[:LEGEND_ENTRIES] + [axes.plot([], [], alpha=0)[0] for _ in notes]
    axes.legend(
        shown,
        names[:LEGEND_ENTRIES] + notes,
        loc="upper left",
        bbox_to_anchor=(1.0, 1.03),
        borderaxespad=0.3,
        handlelength=0.9,
        handletextpad=0.4,
        labelspacing=0.3,
        frameon=False,
    )


def _shortened(name: str) -> str:
    """Return *name* without the prefixes that are alike in this picture; if it is still too long, its end."""
    for prefix in ("com.whatsapp.", "here/wh-0 ", "here here/", "here/"):
        name = name.removeprefix(prefix)
    name = name.removesuffix(" here here/wh")
    return name if len(name) <= LEGEND_CHARACTERS else "…" + name[1 - LEGEND_CHARACTERS :]


def _colour(panel: dict[str, Any], series: Series) -> str | None:
    """Return the colour that the dashboard fixes for this series, None for the next of the cycle."""
    for rule in panel["fieldConfig"]["overrides"]:
        if re.search(rule["matcher"]["options"].strip("/"), series.name):
            return COLOURS[rule["properties"][0]["value"]["fixedColor"]]
    return None


def _tick_step(highest: float, unit: str) -> float:
    """Return the distance of round ticks, of which there are three to five."""
    if unit == "bytes":
        return float(2 ** max(math.ceil(math.log2(highest / 4)), 0))
    power = 10.0 ** math.floor(math.log10(highest / 4))
    return next(step * power for step in (1, 2, 2.5, 5, 10) if highest / (step * power) <= 4)


def _draw_values(axes: Axes, panel: dict[str, Any], series: list[Series]) -> None:
    axes.set_xticks([])
    axes.set_yticks([])
    field, is_name = panel["fieldConfig"]["defaults"], panel["options"]["textMode"] == "name"
    for index, each in enumerate(series):
        x, value = (index + 0.5) / len(series), each.values[-1]
        steps = [
            step["color"] for step in field["thresholds"]["steps"] if step["value"] is None or value >= step["value"]
        ]
        name = "" if is_name else _shortened(each.name)
        shown = each.name if is_name else _with_unit(value, field["unit"])
        y = 0.62 if name else 0.5
        axes.text(x, y, shown, ha="center", va="center", fontsize=19, color=COLOURS[steps[-1]])
        axes.text(x, 0.2, name, ha="center", va="center", color=FAINT)


def _with_unit(value: float, unit: str) -> str:
    match unit:
        case "s":
            return f"{value * THOUSAND:.3g} ms" if value < 1 else f"{value:.3g} s"
        case "bytes":
            return f"{value / 2**20:.3g} MiB" if value < 2**30 else f"{value / 2**30:.3g} GiB"
        case "percentunit":
            return f"{value:.2%}"
        case "dateTimeFromNow":
            return f"{(time.time() - value / THOUSAND) / 60:.0f} min ago"
        case "reqps" | "cps":
            return f"{value:.3g}/s"
        case _:
            return f"{value / THOUSAND:.3g} k" if value >= THOUSAND else f"{value:.3g}"


if __name__ == "__main__":
    with played() as (prometheus, started, ended):
        draw(prometheus, started, ended)
