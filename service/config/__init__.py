"""The configuration: `WEBHOOK_*` environment variables, checked at once."""

from service.config.config import Config, load
from service.config.settings import INBOX_FILE, SETTINGS
from service.config.values import Address, InboxUrl, duration, inbox_url

__all__ = ["INBOX_FILE", "SETTINGS", "Address", "Config", "InboxUrl", "duration", "inbox_url", "load"]
