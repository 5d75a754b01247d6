"""Meta's webhook fields of a WhatsApp Business account, and the pairs of field and type that metrics name.

Source: "Webhooks > Overview" and the field pages of the WhatsApp Business Platform documentation, and
Calling, Groups, Flows and Conversation routing there. Meta adds fields; events of unknown ones are stored too.
"""

import difflib
from collections.abc import Iterable
from typing import Final

from service.events import event_types, matches, messaging

MESSAGES_FIELD: Final = "messages"
FIELDS: Final = {
    "account_alerts": "limits, reviews and other alerts of the account or a number",
    "account_review_update": "the decision on the account's policy review",
    "account_settings_update": "changed settings of a number, such as calling",
    "account_update": "restrictions, violations, partners, verification and deletion of the account",
    "automatic_events": "purchases and leads that Meta saw in click-to-WhatsApp threads",
    "business_capability_update": "changed limits: numbers and conversations",
    "business_status_update": "the business's status (offered by earlier versions of the Graph API)",
    "business_username_update": "the earlier name of business_username_updates",
    "business_username_updates": "the state of the business's username",
    "calls": "calls: offered, ringing, ended, recorded",
    "campaign_status_update": "the status of marketing campaigns (offered by earlier versions of the Graph API)",
    "consumer_profile": "named by Meta for callback overrides; no payload is documented",
    "flows": "the state and the health of Flows and their endpoints",
    "group_lifecycle_update": "groups created and deleted",
    "group_participants_update": "people who joined, left or asked to join a group",
    "group_settings_update": "a group's changed subject, picture or description",
    "group_status_update": "groups suspended, and suspensions lifted",
    "history": "earlier chats of a number that also uses the WhatsApp Business app",
    "message_echoes": "messages that the business sent by other means",
    "message_template_components_update": "a template's changed text, header or buttons",
    "message_template_quality_update": "a template's changed quality score",
    "message_template_status_update": "a template approved, rejected, paused or disabled",
    "messages": "messages from people, and the statuses of messages sent to them",
    "messaging_handovers": "which application handles a conversation from now on",
    "partner_solutions": "the state of multi-partner solutions",
    "payment_configuration_update": "the state of a payment configuration",
    "phone_number_name_update": "the decision on a number's display name",
    "phone_number_quality_update": "a number's changed throughput or limit",
    "security": "the two-step verification PIN: changed, or asked to be reset",
    "smb_app_state_sync": "contacts of a number that also uses the WhatsApp Business app",
    "smb_message_echoes": "messages sent with the WhatsApp Business app",
    "standby": "messages of a conversation that another application handles",
    "template_category_update": "a template's changed category",
    "template_correct_category_detection": "a template found in the wrong category",
    "tracking_events": "conversions that were tracked (offered by earlier versions of the Graph API)",
    "user_id_update": "changed business-scoped user ids (withdrawn by Meta in 2026)",
    "user_preferences": "people who stop or resume marketing messages",
}

# Fields that Meta has renamed, withdrawn or never documented: events of them are accepted, but not subscribed to.
NOT_CHOSEN: Final = frozenset(
    "business_status_update business_username_update campaign_status_update consumer_profile message_echoes "
    "tracking_events user_id_update".split()
)

MESSAGES: Final = (
    "audio button contacts document edit image interactive location media_placeholder order reaction "
    "request_welcome revoke sticker system text unknown unsupported video voice"
).split()
STATUSES: Final = "deleted delivered failed played read sent".split()
CALLS: Final = (
    "accepted call_created call_recording_available call_transcription_available connect rejected ringing terminate"
).split()
EVENTS: Final = {
    "account_update": (
        "account_deleted account_offboarded account_reconnected account_restriction account_violation "
        "ad_account_linked auth_intl_price_eligibility_update business_primary_location_country_update "
        "disabled_update mm_lite_terms_signed partner_added partner_app_installed partner_app_uninstalled "
        "partner_client_certification_status_update partner_removed verified_account "
        "volume_based_pricing_tier_update"
    ).split(),
    "flows": (
        "client_error_rate endpoint_availability endpoint_error_rate endpoint_latency flow_status_change "
        "flow_version_expiry_warning"
    ).split(),
    "message_template_status_update": (
        "approved archived deleted disabled flagged in_appeal limit_exceeded locked paused pending "
        "pending_deletion reinstated rejected unarchived"
    ).split(),
    "phone_number_quality_update": "downgrade flagged onboarding throughput_upgrade unflagged upgrade".split(),
    "partner_solutions": ("solution_created", "solution_updated"),
    "security": "pin_changed pin_request_success pin_reset_request".split(),
}
# Types below those of messages and actions.
NESTED: Final = tuple(
    f"{parent}.{word}"
    for parent, words in (
        ("message.interactive", event_types.INTERACTIVE),
        ("message.system", event_types.SYSTEM),
        ("user_action", event_types.USER_ACTIONS),
    )
    for word in (*sorted(words), event_types.OTHER_WORD)
)
OTHER_LABELS: Final = ("other", "other")


def _pairs() -> frozenset[tuple[str, str]]:
    pairs = {(field, f"com.whatsapp.{field}") for field in FIELDS}
    pairs |= {("messages", f"com.whatsapp.message.{kind}") for kind in MESSAGES}
    pairs |= {("messages", f"com.whatsapp.{kind}") for kind in NESTED}
    pairs |= {("messages", f"com.whatsapp.status.{status}") for status in STATUSES}
    pairs |= {("smb_message_echoes", f"com.whatsapp.echo.{kind}") for kind in MESSAGES}
    pairs |= {("calls", f"com.whatsapp.call.{event}") for event in CALLS}
    pairs |= {(field, f"com.whatsapp.{field}.{event}") for field, events in EVENTS.items() for event in events}
    pairs |= {
        (field, f"com.whatsapp.{field}.{action}")
        for field, actions in event_types.ACTIONS.items()
        for action in (*actions, event_types.OTHER_WORD)
    }
    pairs |= {(field, f"com.whatsapp.{field}.errors") for field in ("messages", "calls")}
    # Of Messenger and Instagram without what happened: there are few, and label values cost memory.
    pairs |= {(array, f"com.meta.{name}") for name in messaging.OBJECTS for array in messaging.ARRAYS}
    return frozenset(pairs | {("", "com.whatsapp.unrecognized")})


PAIRS: Final = _pairs()


def label_pair(field: str, kind: str) -> tuple[str, str]:
    """Return *field* and *kind* (an event's type) as metric labels: unchanged if the table has them, else `other`."""
    if (field, kind) in PAIRS:
        return field, kind
    pair = field, ".".join(kind.split(".")[:3])  # com.meta.page
    return pair if pair in PAIRS and kind.startswith("com.meta.") else OTHER_LABELS


_MESSAGING_TYPES: Final = frozenset(
    messaging.type_name(name, array, kind)
    for name in messaging.OBJECTS
    for array in messaging.ARRAYS
    for kind in (*messaging.KINDS, messaging.ECHO, messaging.OTHER_KIND)
)
TYPES: Final = _MESSAGING_TYPES | {kind for _, kind in PAIRS if not kind.startswith("com.meta.")}
_WITHOUT_ERRORS: Final = tuple(sorted(kind for kind in TYPES if not kind.endswith(".errors")))


def unmatched(patterns: Iterable[str]) -> list[str]:
    """Return a warning for each of a filter's *patterns* that matches no known type, or only types of errors."""
    return [
        _warning(pattern)
        for pattern in patterns
        if not any(matches(pattern, kind) for kind in (TYPES if "errors" in pattern else _WITHOUT_ERRORS))
    ]


def _warning(pattern: str) -> str:
    candidates = [*_WITHOUT_ERRORS, *sorted({kind.rpartition(".")[0] + ".*" for kind in _WITHOUT_ERRORS})]
    nearest = difflib.get_close_matches(pattern, candidates, n=1, cutoff=0.5)
    hint = f": did you mean {nearest[0]!r}?" if nearest else "; docs/events.md lists the types"
    return f"{pattern!r} matches no known event type{hint}"
