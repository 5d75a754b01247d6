"""`subscribe`, `unsubscribe`, `status`: change and show what is registered at Meta."""

from service.cli.meta.status import status
from service.cli.meta.subscribe import subscribe
from service.cli.meta.unsubscribe import unsubscribe

__all__ = ["status", "subscribe", "unsubscribe"]
