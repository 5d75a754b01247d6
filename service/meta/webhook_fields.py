"""Meta's webhook fields of a WhatsApp Business account, and the pairs of field and type that metrics name.

Source: "Webhooks > Overview" and the field pages of the WhatsApp Business Platform documentation, and
Calling, Groups, Flows and Conversation routing there. Meta adds fields; events of unknown ones are stored too.
"""

import difflib
from collections.abc import Iterable, Iterator, Sequence
from typing import Final, NamedTuple

from service.events import UNRECOGNIZED, event_types, matches, messaging

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
# Fields whose updates have types of their own: these are the types of the rest.
_REST: Final = {
    "messages": "another update of this field, such as an error of your number",
    "calls": "another update of this field",
    "smb_message_echoes": "another update of this field",
}
_WITH_ERRORS: Final = ("messages", "calls")  # fields whose updates can hold errors alone
_ECHO_MEANING: Final = "you wrote to a person with the WhatsApp Business app"
OTHER_LABELS: Final = ("other", "other")


class Family(NamedTuple):
    """The types that start with *name*: with each of *words* after it, and if *has_bare* the name itself."""

    name: str
    meaning: str
    field: str = ""
    words: Sequence[str] = ()
    has_bare: bool = False

    def types(self) -> Iterator[str]:
        """Yield each type."""
        if self.has_bare:
            yield self.name
        yield from (f"{self.name}.{word}" for word in self.words)


def families() -> list[Family]:
    """Return all known types by family, in the order of the documentation."""
    message, field = "com.whatsapp.message", MESSAGES_FIELD
    replies, numbers, clicks = map(_with_other, (event_types.INTERACTIVE, event_types.SYSTEM, event_types.USER_ACTIONS))
    return [
        Family(message, "a person wrote to you", field, MESSAGES),
        Family(f"{message}.interactive", "a person answered an interactive message", field, replies),
        Family(f"{message}.system", "a person's number or user id changed", field, numbers),
        Family("com.whatsapp.status", "progress of a message that you sent", field, STATUSES),
        Family("com.whatsapp.user_action", "a person clicked", field, clicks),
        Family("com.whatsapp.echo", _ECHO_MEANING, "smb_message_echoes", MESSAGES),
        Family("com.whatsapp.call", "a call", "calls", CALLS),
        *map(_field_family, FIELDS),
        *_messaging_families(),
        Family(UNRECOGNIZED, "a signed body, or an update, that could not be read", has_bare=True),
    ]


def _with_other(words: Iterable[str]) -> Sequence[str]:
    return (*sorted(words), event_types.OTHER_WORD)


def _field_family(field: str) -> Family:
    words = EVENTS.get(field) or ((event_types.ERRORS_WORD,) if field in _WITH_ERRORS else ())
    if field in event_types.ACTIONS:
        words = _with_other(event_types.ACTIONS[field])
    return Family(f"com.whatsapp.{field}", _REST.get(field, FIELDS[field]), field, words, has_bare=True)


def _messaging_families() -> Iterator[Family]:
    words = (*messaging.KINDS, messaging.ECHO, messaging.OTHER_KIND)
    for name, product in (("page", "Messenger"), ("instagram", "Instagram")):
        yield Family(f"com.meta.{name}", f"{product}: what happened in a conversation", words=words)
        meaning = f"{product}: the same in a conversation that another application answers"
        yield Family(f"com.meta.{name}.{messaging.STANDBY}", meaning, words=words)


def _pairs() -> frozenset[tuple[str, str]]:
    pairs = {(family.field, kind) for family in families() if family.field for kind in family.types()}
    # Of Messenger and Instagram without what happened: label values cost memory.
    pairs |= {(array, f"com.meta.{name}") for name in messaging.OBJECTS for array in messaging.ARRAYS}
    return frozenset(pairs | {("", UNRECOGNIZED)})


PAIRS: Final = _pairs()


def label_pair(field: str, kind: str) -> tuple[str, str]:
    """Return *field* and *kind* (an event's type) as metric labels: unchanged if the table has them, else `other`."""
    if (field, kind) in PAIRS:
        return field, kind
    if kind == UNRECOGNIZED:  # a single update of any field
        return "", kind
    pair = field, ".".join(kind.split(".")[:3])  # com.meta.page
    return pair if pair in PAIRS and kind.startswith("com.meta.") else OTHER_LABELS


TYPES: Final = frozenset(kind for family in families() for kind in family.types())
_NEAREST: Final = tuple(sorted(kind for kind in TYPES if not kind.endswith(f".{event_types.ERRORS_WORD}")))


def unmatched(patterns: Iterable[str]) -> list[str]:
    """Return a warning for each of a filter's *patterns* that matches no known type, or only types of errors."""
    return [
        _warning(pattern)
        for pattern in patterns
        if not any(matches(pattern, kind) for kind in (TYPES if "errors" in pattern else _NEAREST))
    ]


def _warning(pattern: str) -> str:
    candidates = [*_NEAREST, *sorted({kind.rpartition(".")[0] + ".*" for kind in _NEAREST})]
    nearest = difflib.get_close_matches(pattern, candidates, n=1, cutoff=0.5)
    hint = f": did you mean {nearest[0]!r}?" if nearest else "; docs/events.md lists the types"
    return f"{pattern!r} matches no known event type{hint}"
