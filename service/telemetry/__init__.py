"""Telemetry of the processes: metrics, traces and logs.

These are the only modules that import prometheus_client, OpenTelemetry and structlog.
"""
