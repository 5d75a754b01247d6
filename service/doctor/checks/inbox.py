"""Whether the test notifications that were answered 200 are in the inbox."""

from collections.abc import Sequence

from service.doctor.checks.local_instance import InboxReader
from service.doctor.finding import Finding
from service.errors import InboxUnavailable
from service.meta import webhook_fields
from service.outcomes import CheckId

RUN_BESIDE_SERVICE = (
    "Run the doctor on the service's machine, with the service's settings: whatsapp-webhook doctor. "
    "In a cluster: kubectl -n NAMESPACE exec POD -- whatsapp-webhook doctor"
)


def check(
    inbox: InboxReader | str, messages: Sequence[str], fields: frozenset[str], *, is_url_known: bool, by_url: bool
) -> Finding:
    """Search the inbox for *messages*; *by_url* is whether one of them was sent to the public URL."""
    name = CheckId.INBOX
    if not messages:
        what = "No test notification was accepted, so the inbox was not searched for one."
        return Finding.unknown(
            name, what, "Fix the problem above first." if is_url_known or inbox else RUN_BESIDE_SERVICE
        )
    if not isinstance(inbox, InboxReader):
        remedy = "Run `whatsapp-webhook events list` where the inbox is: the newest events are those of this test."
        return Finding.unknown(name, inbox or "The inbox can't be read from here.", remedy)
    try:
        is_there = inbox.has(messages)
    except InboxUnavailable as ex:
        return Finding.unknown(name, f"The inbox can't be read: {ex.detail}.", "Try `whatsapp-webhook events list`.")
    if is_there:
        stored = "The test notifications are stored, marked as tests, which destinations skip by default."
        only_direct = "The test notification that was sent directly is stored; through the URL, none was accepted."
        return Finding.ok(name, stored if by_url else only_direct)
    if fields and webhook_fields.MESSAGES_FIELD not in fields:
        return Finding.unknown(
            name,
            "Messages are answered 200 but not stored: WEBHOOK_FIELDS does not include messages.",
            "If that is not intended, add messages to WEBHOOK_FIELDS, or leave it empty to store every field.",
        )
    return Finding.wrong(
        name,
        "The test notifications were answered 200, but they are not in this inbox.",
        "Another instance answered: check where the URL sends requests, and that instance's WEBHOOK_INBOX.",
    )
