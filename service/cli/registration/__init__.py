"""`subscribe`, `unsubscribe`, `status`: what is registered at Meta, and changing it."""

from service.cli.registration.status import status
from service.cli.registration.subscribe import subscribe
from service.cli.registration.unsubscribe import unsubscribe

__all__ = ["status", "subscribe", "unsubscribe"]
