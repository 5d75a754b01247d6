"""Receives webhooks of Meta's WhatsApp Business Platform, stores them, and delivers them to other systems.

A module imports only from layers below its own: see the table in docs/architecture.md; `make check` enforces it.
"""

from importlib.metadata import PackageNotFoundError, version

try:
    __version__ = version("whatsapp-webhook")
except PackageNotFoundError:  # run from a checkout that was never installed
    __version__ = "0.0.0"
