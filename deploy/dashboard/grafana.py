"""The dashboard in Grafana's classic JSON, which every sidecar loads. The chart replaces the runbook's URL."""

import json
from collections.abc import Sequence
from typing import Any, Final

from grafana_foundation_sdk.builders import common, prometheus, stat, timeseries
from grafana_foundation_sdk.builders import dashboard as grafana
from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.models.common import (
    BigValueColorMode,
    BigValueGraphMode,
    BigValueTextMode,
    GraphThresholdsStyleMode,
    SortOrder,
    TooltipDisplayMode,
)
from grafana_foundation_sdk.models.dashboard import (
    DashboardCursorSync,
    DashboardLinkType,
    DataSourceRef,
    DynamicConfigValue,
    FieldColorModeId,
    GridPos,
    Threshold,
    ThresholdsMode,
    VariableOption,
    VariableRefresh,
)

from dashboard.panel import PLAIN, RED, Graph, Panel, Stat
from dashboard.panels import ALERTS, OURS, OURS_ALONE, PANELS, POD, P

GRID_WIDTH: Final = 24
GRAPHS_PER_LINE: Final = 3
MAX_GRAPHS_PER_LINE: Final = 4
SCRAPE_INTERVAL: Final = "30s"  # a rate spans several
SOURCE: Final = DataSourceRef(type_val="prometheus", uid="${datasource}")
ALL: Final = VariableOption(text="All", value="$__all", selected=True)


def dashboard() -> dict[str, Any]:
    """Return the dashboard as JSON."""
    made: dict[str, Any] = json.loads(json.dumps(_dashboard().build(), cls=JSONEncoder))
    for annotation in made["annotations"]["list"]:
        annotation.update(ANNOTATIONS[annotation["name"]])
    return made


def _dashboard() -> grafana.Dashboard:
    runbook = grafana.DashboardLink("Runbook").type(DashboardLinkType.LINK).url("__RUNBOOK__").icon("doc")
    made = (
        grafana.Dashboard("WhatsApp webhook")
        .uid("whatsapp-webhook")
        .tags(["whatsapp", "webhook"])
        .editable()
        .tooltip(DashboardCursorSync.CROSSHAIR)
        .refresh("30s")
        .time("now-6h", "now")
        .link(runbook.target_blank(True))
        .annotation(_annotation("Alerts", ALERTS, RED))
        .annotation(_annotation("Starts", f"process_start_time_seconds{OURS} * 1000", "blue"))
        .with_variable(grafana.DatasourceVariable("datasource").type("prometheus").label("Data source"))
        .with_variable(_variable("namespace", f"label_values({P}build_info, namespace)"))
        .with_variable(_variable("pod", f'label_values({{__name__=~"{OURS_ALONE}", namespace=~"$namespace"}}, pod)'))
    )
    number, top = 1, 0
    for title, row in PANELS.items():
        made.with_row(grafana.Row(title).id(number).grid_pos(GridPos(h=1, w=GRID_WIDTH, x=0, y=top)))
        number, top = number + 1, top + 1
        for line in _lines(row):
            width = GRID_WIDTH // len(line)
            for index, panel in enumerate(line):
                place = GridPos(h=panel.height, w=width, x=index * width, y=top)
                made.with_panel(_panel(panel).id(number).grid_pos(place))
                number += 1
            top += line[0].height
    return made


def _lines(row: Sequence[Panel]) -> list[list[Panel]]:
    """Split a row into lines: stats first, then graphs."""
    stats: list[Panel] = [panel for panel in row if isinstance(panel, Stat)]
    graphs: list[Panel] = [panel for panel in row if isinstance(panel, Graph)]
    width = len(graphs) if len(graphs) == MAX_GRAPHS_PER_LINE else GRAPHS_PER_LINE
    return [stats] * bool(stats) + [graphs[start : start + width] for start in range(0, len(graphs), width)]


def _panel(panel: Panel) -> stat.Panel | timeseries.Panel:
    made = _stat(panel) if isinstance(panel, Stat) else _graph(panel)
    made.title(panel.title).description(panel.description).datasource(SOURCE).interval(SCRAPE_INTERVAL).unit(panel.unit)
    for index, (legend, query) in enumerate(panel.queries.items()):
        target = prometheus.Dataquery().ref_id(chr(ord("A") + index)).expr(query).legend_format(legend or "__auto")
        target = target.instant() if isinstance(panel, Stat) else target.range()
        made.with_target(target.datasource(SOURCE))
    return made


def _stat(panel: Stat) -> stat.Panel:
    made = (
        stat.Panel()
        .no_value(panel.none)
        .color_scheme(grafana.FieldColor().mode(FieldColorModeId.THRESHOLDS))
        .thresholds(_steps(*panel.steps))
        .reduce_options(common.ReduceDataOptions().calcs(["lastNotNull"]).fields("").values(False))
        .color_mode(BigValueColorMode.VALUE)
        .graph_mode(BigValueGraphMode.NONE)
        .text_mode(BigValueTextMode(panel.text))
    )
    return made.decimals(2) if panel.unit == "percentunit" else made


def _graph(panel: Graph) -> timeseries.Panel:
    tooltip = common.VizTooltipOptions().mode(TooltipDisplayMode.MULTI).sort(SortOrder.DESCENDING)
    made = timeseries.Panel().min(0).tooltip(tooltip)
    if panel.limit is not None:
        dashed = common.GraphThresholdsStyleConfig().mode(GraphThresholdsStyleMode.DASHED)
        made.thresholds(_steps((PLAIN, None), (RED, panel.limit))).thresholds_style(dashed)
    for names, colour in panel.colours.items():
        fixed = DynamicConfigValue("color", {"mode": "fixed", "fixedColor": colour})
        made.override_by_regexp(f"/^({names})$/", [fixed])
    return made


def _steps(*steps: tuple[str, float | None]) -> grafana.ThresholdsConfig:
    thresholds = [Threshold(color=colour, value=lowest) for colour, lowest in steps]
    return grafana.ThresholdsConfig().mode(ThresholdsMode.ABSOLUTE).steps(thresholds)


def _annotation(name: str, query: str, colour: str) -> grafana.AnnotationQuery:
    return grafana.AnnotationQuery().name(name).datasource(SOURCE).enable(True).expr(query).icon_color(colour)


# What the library has no names for: settings of Prometheus's annotations, by annotation.
ANNOTATIONS: Final[dict[str, dict[str, Any]]] = {
    "Alerts": {"step": SCRAPE_INTERVAL, "titleFormat": "{{alertname}}"},
    "Starts": {"step": SCRAPE_INTERVAL, "titleFormat": f"start of {POD}", "useValueForTime": True},
}


def _variable(name: str, query: str) -> grafana.QueryVariable:
    # Without `allValue`, "All" means the values that the query found: our pods, and no others.
    made = grafana.QueryVariable(name).datasource(SOURCE).query({"query": query, "refId": name})
    return made.refresh(VariableRefresh.ON_TIME_RANGE_CHANGED).include_all(True).multi(True).current(ALL)


def text() -> str:
    """Return the JSON text of the file."""
    return json.dumps(dashboard(), indent=1) + "\n"
