"""The front door between Meta's WhatsApp Business Platform and a company's own systems.

A module imports only from layers below its own; docs/architecture.md has the table, `make check` proves it.
"""

from importlib.metadata import PackageNotFoundError, version

try:
    __version__ = version("whatsapp-webhook")
except PackageNotFoundError:  # run from a checkout that was never installed
    __version__ = "0.0.0"
