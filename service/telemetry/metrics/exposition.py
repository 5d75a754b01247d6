"""Encodes the metrics page."""

import prometheus_client.exposition
from prometheus_client import CollectorRegistry


def encoded(registry: CollectorRegistry, accept: str) -> tuple[bytes, str]:
    """Return all metrics and their content type: OpenMetrics if *accept* asks for it, else the text format."""
    try:
        encode, content_type = prometheus_client.exposition.choose_encoder(accept)
    except (TypeError, ValueError):  # a malformed version in the header
        encode, content_type = prometheus_client.exposition.choose_encoder("")
    return encode(registry), content_type
