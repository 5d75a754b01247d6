"""The generator of deploy/helm/files/dashboard.json (`make dashboard`); an on-call engineer reads the rows top down."""

from dashboard.grafana import dashboard, text
from dashboard.panels import PANELS

__all__ = ["PANELS", "dashboard", "text"]
