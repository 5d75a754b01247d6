"""The configuration: `WEBHOOK_*` environment variables, all checked at startup."""

from service.config.config import Config, load, misspelt
from service.config.parsers import Address, InboxUrl, duration, ids, inbox_url, names, public_url
from service.config.settings import INBOX_FILE, SECRETS, SETTINGS

__all__ = [
    "INBOX_FILE",
    "SECRETS",
    "SETTINGS",
    "Address",
    "Config",
    "InboxUrl",
    "duration",
    "ids",
    "inbox_url",
    "load",
    "misspelt",
    "names",
    "public_url",
]
