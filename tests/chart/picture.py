"""Draws docs/dashboard.png from the dashboard's own queries: `make picture`.

A real service gets some minutes of load, all that `simulate` plays, and a rotation; a real Prometheus scrapes it. No
Grafana takes part: this shows what the queries give, in the dashboard's order and rows, not its looks.
"""

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
from typing import Any

import dashboard
import matplotlib as mpl
from matplotlib import pyplot as plt
from matplotlib.axes import Axes

from tests.chart.prometheus import Prometheus, scraping
from tests.support.destination import OK, Request, destination
from tests.support.relaying import Relay, write
from tests.support.server import Server

FILE = Path(__file__).parents[2] / "docs" / "dashboard.png"
# What is played: notifications a second, each for PHASE seconds.
RATES = (20, 60, 150, 60, 20)
PHASE = 60
BEGUN = time.monotonic()
STEP = 2.0  # seconds between two points
WIDTH = 24  # units of the dashboard
INCHES = 0.55  # of a unit
COLOURS = {"red": "#f2495c", "orange": "#ff9830", "green": "#73bf69"}
THOUSANDS = 1_000  # from which they are written so
MANY = 5  # legends that find room


def play(server: Server) -> None:
    """Load that comes and goes, beside it everything there is, and in the middle a rotation of both credentials."""
    command = [sys.executable, "-m", "service", "simulate", f"http://127.0.0.1:{server.port}/webhooks"]
    command += ["--credentials", str(server.credentials)]
    for number, rate in enumerate(RATES):
        load = subprocess.Popen([*command, "--rate", str(rate), "--duration", str(PHASE)], stdout=subprocess.DEVNULL)
        time.sleep(PHASE / 2)
        if number == len(RATES) // 2:
            server.write_credentials(f"new-token\n{server.token}", f"new-secret\n{server.secret}")
        subprocess.run(command, check=False, stdout=subprocess.DEVNULL)
        load.wait()


def faulty(_request: Request, client: socket.socket) -> None:
    """Be down for the fourth minute; else answer, one in fifty with 500."""
    down = PHASE * 3 < time.monotonic() - BEGUN < PHASE * 4
    time.sleep(0.002)
    client.sendall(OK.replace(b"200 OK", b"503 X" if down else b"500 X") if down or random.random() < 0.02 else OK)


@contextmanager
def played() -> Iterator[tuple[Prometheus, float, float]]:
    """Give a Prometheus that has seen it all, and from when to when, as Unix time."""
    with tempfile.TemporaryDirectory() as name, destination(faulty) as app:
        write(Path(name), {"url": f"http://127.0.0.1:{app.port}/", "name": "bot"})
        with Server(Path(name)) as server, Relay(Path(name)) as relay:
            yield from scraped(Path(name), server, relay)


def scraped(directory: Path, server: Server, relay: Relay) -> Iterator[tuple[Prometheus, float, float]]:
    """Scrape both while it is played."""
    targets = [
        {"targets": [f"127.0.0.1:{port}"], "labels": {"namespace": "here", "pod": "wh-0", "container": container}}
        for container, port in (("receiver", server.admin_port), ("relay", relay.port))
    ]
    job = {"job_name": "here/wh", "static_configs": targets}
    with scraping(directory / "prometheus", [job], {"groups": []}) as prometheus:
        started = time.time()
        play(server)
        yield prometheus, started, time.time()


Series = tuple[str, list[float], list[float]]  # its legend, minutes since the start, values


def draw(prometheus: Prometheus, started: float, ended: float) -> None:
    """Write the picture: each panel where the dashboard has it."""
    plt.style.use("dark_background")
    mpl.rcParams.update({"font.size": 7, "axes.titlesize": 8, "axes.edgecolor": "#444", "grid.color": "#333"})
    panels = dashboard.dashboard()["panels"]
    height = max(panel["gridPos"]["y"] + panel["gridPos"]["h"] for panel in panels)
    figure = plt.figure(figsize=(WIDTH * INCHES, height * INCHES / 1.6), facecolor="#111217")
    for panel in panels:
        left, top, width, high = (panel["gridPos"][key] for key in "xywh")
        if panel["type"] == "row":
            figure.text(0.008, 1 - (top + 0.75) / height, panel["title"], fontsize=11, fontweight="bold")
            continue
        box = (left + 1.1) / WIDTH, 1 - (top + high - 0.8) / height, (width - 1.5) / WIDTH, (high - 1.9) / height
        axes = figure.add_axes(box, facecolor="#181b1f")
        axes.set_title(panel["title"], loc="left")
        if panel["type"] == "stat":
            _draw_values(axes, panel, list(_series(prometheus, panel, ended, ended, f"{len(RATES) * PHASE}s")))
        else:
            _draw_lines(axes, panel, list(_series(prometheus, panel, started, ended, "20s")))
    figure.savefig(FILE, dpi=100)


def _series(
    prometheus: Prometheus, panel: dict[str, Any], started: float, ended: float, window: str
) -> Iterator[Series]:
    for target in panel["targets"]:
        query = prometheus.as_grafana_asks(target["expr"], window)
        span = {"start": str(started), "end": str(ended), "step": str(STEP)}
        for found in prometheus.get("query_range", query=query, **span)["result"]:
            labels, legend = found["metric"], target["legendFormat"].replace("__auto", "")
            points = [(float(at), float(value)) for at, value in found["values"]]
            name = re.sub(r"{{(\w+)}}", lambda it, labels=labels: labels.get(it[1], ""), legend)
            yield name, [(at - started) / 60 for at, _ in points], [value for _, value in points]


def _draw_lines(axes: Axes, panel: dict[str, Any], series: list[Series]) -> None:
    field = panel["fieldConfig"]
    for name, minutes, values in sorted(series, key=lambda one: -max(one[2])):
        colours = (
            rule["properties"][0]["value"]["fixedColor"]
            for rule in field["overrides"]
            if re.search(rule["matcher"]["options"].strip("/"), name)
        )
        axes.plot(minutes, values, label=name, linewidth=1, color=COLOURS.get(next(colours, "")))
    axes.set_xlim(0, len(RATES) * PHASE / 60)
    axes.set_ylim(bottom=0)
    axes.grid(visible=True)
    axes.yaxis.set_major_formatter(lambda value, _: _with_unit(value, field["defaults"]["unit"]))
    drawn, names = axes.get_legend_handles_labels()
    more = [f"and {len(names) - MANY} more"] if len(names) > MANY else []
    shown = drawn[:MANY] + [axes.plot([], [], alpha=0)[0] for _ in more]
    axes.legend(shown, names[:MANY] + more, loc="upper left", fontsize=5.5, frameon=False)


def _draw_values(axes: Axes, panel: dict[str, Any], series: list[Series]) -> None:
    axes.set_xticks([])
    axes.set_yticks([])
    field, is_name = panel["fieldConfig"]["defaults"], panel["options"]["textMode"] == "name"
    for number, (name, _, values) in enumerate(series):
        at, value = (number + 0.5) / len(series), values[-1]
        steps = [
            step["color"] for step in field["thresholds"]["steps"] if step["value"] is None or value >= step["value"]
        ]
        shown = name if is_name else _with_unit(value, field["unit"])
        axes.text(at, 0.58, shown, ha="center", va="center", fontsize=17, color=COLOURS.get(steps[-1], "white"))
        axes.text(at, 0.14, "" if is_name else name, ha="center", va="center", color="#aaa")


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
            return f"{value / 1000:.3g} k" if value >= THOUSANDS else f"{value:.3g}"


if __name__ == "__main__":
    with played() as (prometheus, started, ended):
        draw(prometheus, started, ended)
