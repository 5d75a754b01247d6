"""Whether the test notifications that were answered 200 are in the inbox."""

from collections.abc import Sequence

from service.doctor.checks.local_instance import Kept
from service.doctor.finding import Finding
from service.errors import InboxUnavailable
from service.meta import webhook_fields
from service.outcomes import CheckId

BESIDE = (
    "Run it where the service runs: whatsapp-webhook doctor, on its machine and with its settings; "
    "in a cluster: kubectl -n NAMESPACE exec POD -- whatsapp-webhook doctor"
)


def look(
    kept: Kept | str, messages: Sequence[str], fields: frozenset[str], *, is_url_known: bool, by_url: bool
) -> Finding:
    """Look for *messages* in the inbox; *by_url* is whether one of them was sent to the public URL."""
    check = CheckId.INBOX
    if not messages:
        what = "No test notification was taken, so none can be looked for."
        return Finding.unknown(check, what, "Mend the above first." if is_url_known or kept else BESIDE)
    if not isinstance(kept, Kept):
        remedy = "whatsapp-webhook events list, where the inbox is: the newest are those of this test."
        return Finding.unknown(check, kept or "The inbox is not seen from here.", remedy)
    try:
        is_there = kept.has(messages)
    except InboxUnavailable as ex:
        return Finding.unknown(check, f"The inbox can't be read: {ex.detail}.", "whatsapp-webhook events list")
    if is_there:
        all_of = "The test notifications are there, marked as tests, which destinations skip."
        direct = "The test notification that was sent directly is there; by the URL none was taken."
        return Finding.ok(check, all_of if by_url else direct)
    if fields and webhook_fields.MESSAGES_FIELD not in fields:
        return Finding.unknown(
            check,
            "What people write is answered 200 and not kept: WEBHOOK_FIELDS does not name messages.",
            "If that is not meant: add messages to WEBHOOK_FIELDS, or leave it empty to keep all.",
        )
    return Finding.wrong(
        check,
        "The test notifications were answered 200, and are not in this inbox.",
        "Another instance answered: look at where the URL leads, and at its WEBHOOK_INBOX.",
    )
