"""Draws docs/dashboard.png from the dashboard's own queries: `make picture`.

A real service gets some minutes of load, all that `simulate` plays, and a rotation; a real Prometheus scrapes it. No
Grafana takes part: this shows what the queries give, in the dashboard's order and rows, not its looks.
"""

import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import dashboard
import matplotlib as mpl
from chart.prometheus import Prometheus, scraping
from dashboard import Graph, Panel, Stat
from matplotlib import pyplot as plt
from matplotlib.axes import Axes
from server import Server

FILE = Path(__file__).parents[2] / "docs" / "dashboard.png"
# What is played: notifications a second, each for PHASE seconds.
RATES = (20, 60, 150, 60, 20)
PHASE = 60
STEP = 2.0  # seconds between two points
GROUND = "#111217"
COLOURS = {"red": "#f2495c", "orange": "#ff9830", "green": "#73bf69"}
MANY = 4  # legends that stand in one column


def play(server: Server) -> None:
    """Load that comes and goes, beside it everything there is, and in the middle a rotation of both credentials."""
    command = [sys.executable, "-m", "service", "simulate", f"http://127.0.0.1:{server.port}/webhooks"]
    command += ["--credentials", str(server.credentials)]
    for number, rate in enumerate(RATES):
        if number == len(RATES) // 2:
            server.write_credentials(f"new-token\n{server.token}", f"new-secret\n{server.secret}")
        load = subprocess.Popen([*command, "--rate", str(rate), "--duration", str(PHASE)], stdout=subprocess.DEVNULL)
        time.sleep(PHASE / 2)
        subprocess.run(command, check=False, stdout=subprocess.DEVNULL)
        load.wait()


@contextmanager
def played() -> Iterator[tuple[Prometheus, float, float]]:
    """Give a Prometheus that has seen it all, and from when to when, as Unix time."""
    with tempfile.TemporaryDirectory() as name, Server(Path(name)) as server:
        target = {"targets": [f"127.0.0.1:{server.admin_port}"], "labels": {"namespace": "here", "pod": "wh-0"}}
        job = {"job_name": "here/wh", "static_configs": [target]}
        with scraping(Path(name) / "prometheus", job, {"groups": []}) as prometheus:
            started = time.time()
            play(server)
            yield prometheus, started, time.time()


Series = tuple[str, list[float], list[float]]  # its legend, minutes since the start, values


def draw(prometheus: Prometheus, started: float, ended: float) -> None:
    """Write the picture."""
    plt.style.use("dark_background")
    mpl.rcParams.update({"font.size": 7, "axes.titlesize": 8, "axes.edgecolor": "#555", "grid.color": "#333"})
    rows = [(title, dashboard.lines(row)) for title, row in dashboard.PANELS.items()]
    heights = [sum(line[0].height for line in lines) + 1 for _, lines in rows]
    figure = plt.figure(figsize=(13, 0.22 * sum(heights)), layout="constrained", facecolor=GROUND)
    for part, (title, lines) in zip(figure.subfigures(len(rows), 1, height_ratios=heights), rows, strict=True):
        part.set_facecolor(GROUND)
        part.suptitle(title, x=0.005, ha="left", fontsize=10, fontweight="bold")
        bands = part.subfigures(len(lines), 1, height_ratios=[line[0].height for line in lines], squeeze=False)
        for band, line in zip(bands.flat, lines, strict=True):
            band.set_facecolor(GROUND)
            for axes, panel in zip(band.subplots(1, len(line), squeeze=False).flat, line, strict=True):
                axes.set_facecolor("#181b1f")
                axes.set_title(panel.title, loc="left")
                if isinstance(panel, Graph):
                    _draw_lines(axes, panel, list(_series(prometheus, panel, started, ended)))
                else:
                    _draw_values(axes, panel, list(_series(prometheus, panel, ended, ended)))
    figure.savefig(FILE, dpi=110)


def _series(prometheus: Prometheus, panel: Panel, started: float, ended: float) -> Iterator[Series]:
    window = "20s" if isinstance(panel, Graph) else f"{len(RATES) * PHASE}s"
    for legend, query in panel.queries.items():
        span = {"start": str(started), "end": str(ended), "step": str(STEP)}
        for found in prometheus.get("query_range", query=prometheus.as_grafana_asks(query, window), **span)["result"]:
            name = re.sub(r"{{(\w+)}}", lambda it, found=found: found["metric"].get(it[1], ""), legend)
            points = [(float(at), float(value)) for at, value in found["values"]]
            yield name, [(at - started) / 60 for at, _ in points], [value for _, value in points]


def _draw_lines(axes: Axes, panel: Graph, series: list[Series]) -> None:
    for name, minutes, values in series:
        colour = next((colour for names, colour in panel.colours.items() if re.fullmatch(names, name)), None)
        axes.plot(minutes, values, label=name, linewidth=1, color=COLOURS.get(colour))
    axes.set_xlim(0, len(RATES) * PHASE / 60)
    axes.set_ylim(bottom=0)
    axes.grid(visible=True)
    axes.yaxis.set_major_formatter(lambda value, _: _with_unit(value, panel.unit))
    axes.legend(loc="upper left", fontsize=5.5, ncols=2 if len(series) > MANY else 1, frameon=False)


def _draw_values(axes: Axes, panel: Stat, series: list[Series]) -> None:
    axes.set_xticks([])
    axes.set_yticks([])
    for number, (name, _, values) in enumerate(series):
        at, value = (number + 0.5) / len(series), values[-1]
        colour = [colour for colour, least in panel.steps if least is None or value >= least][-1]
        shown = name if panel.text == "name" else _with_unit(value, panel.unit)
        axes.text(at, 0.58, shown, ha="center", va="center", fontsize=17, color=COLOURS.get(colour, "white"))
        axes.text(at, 0.14, "" if panel.text == "name" else name, ha="center", va="center", color="#aaa")


def _with_unit(value: float, unit: str) -> str:
    match unit:
        case "s":
            return f"{value * 1000:.3g} ms" if value < 1 else f"{value:.3g} s"
        case "bytes":
            return f"{value / 2**20:.3g} MiB" if value < 2**30 else f"{value / 2**30:.3g} GiB"
        case "percentunit":
            return f"{value:.2%}"
        case "dateTimeFromNow":
            return f"{(time.time() - value / 1000) / 60:.0f} min ago"
        case "reqps" | "cps":
            return f"{value:.3g}/s"
        case _:
            return f"{value:.3g}"


if __name__ == "__main__":
    with played() as (prometheus, started, ended):
        draw(prometheus, started, ended)
