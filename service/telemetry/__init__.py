"""What others see of the processes: metrics, traces and logs.

The only modules that know prometheus_client, OpenTelemetry and structlog.
"""
