"""The front door between Meta's WhatsApp Business Platform and a company's own systems.

The floors of the house, top down (a module imports only from floors below its own):
ways in (`cli`, `gunicorn_conf`, `worker`), composition root (`app`), edges (`webhook`, `admin`, `meta`),
durable state (`inbox`), core (`events`, `signature`, `handshake`, `credentials`, `fields`),
being seen (`metrics`, `tracing`, `logs`), ground (`config`, `drain`, `errors`).
"""

from importlib.metadata import PackageNotFoundError, version

try:
    __version__ = version("whatsapp-webhook")
except PackageNotFoundError:  # run from a checkout that was never installed
    __version__ = "0.0.0"
