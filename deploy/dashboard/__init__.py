"""Writes deploy/helm/files/dashboard.json, which the on-call engineer reads top down: `make dashboard`."""

from dashboard.grafana import dashboard, lines, text
from dashboard.panel import Graph, Panel, Stat
from dashboard.panels import PANELS

__all__ = ["PANELS", "Graph", "Panel", "Stat", "dashboard", "lines", "text"]
