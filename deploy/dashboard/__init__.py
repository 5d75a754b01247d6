"""Writes deploy/helm/files/dashboard.json, which the on-call engineer reads top down: `make dashboard`."""

from dashboard.grafana import dashboard, text
from dashboard.panels import PANELS

__all__ = ["PANELS", "dashboard", "text"]
