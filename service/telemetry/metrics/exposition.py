"""The metrics page as bytes."""

import prometheus_client.exposition
from prometheus_client import CollectorRegistry


def encoded(registry: CollectorRegistry, accept: str) -> tuple[bytes, str]:
    """Return all metrics and their content type, as the header *accept* asks: the text format, or OpenMetrics."""
    try:
        encode, content_type = prometheus_client.exposition.choose_encoder(accept)
    except (TypeError, ValueError):  # a version that is none
        encode, content_type = prometheus_client.exposition.choose_encoder("")
    return encode(registry), content_type
