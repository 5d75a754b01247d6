"""Events to store."""

from service.events import Event

HOUR = 3_600_000  # milliseconds, like all times here
DAY = 24 * HOUR
NOW = 1_795_000_000_000


def event(number: int, *, at: int = NOW, data: bytes = b"{}") -> Event:
    """Return the event with this *number*: the same number gives the same event."""
    return Event(
        id=f"106:wamid.{number}:0123456789abcdef",
        type="com.whatsapp.message.text",
        source="/102/106",
        subject=None if number % 2 else "16505551234",
        partitionkey="106:16505551234",
        time=at - 1000,
        own_time=at - 1000 if number % 5 else 0,
        received_at=at,
        field="messages",
        test=number % 3 == 0,
        traceparent=None if number % 2 else "00-1-2-01",
        data=data,
    )
