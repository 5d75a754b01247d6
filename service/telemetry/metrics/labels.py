"""The closed sets of label values that dashboards and alerts know."""

from typing import Final

# What becomes of a notification.
OUTCOMES: Final = (
    "accepted",
    "too_large",
    "encoded",
    "not_configured",
    "bad_signature",
    "overloaded",
    "timeout",
    "aborted",
    "unavailable",
    "error",
)
# What becomes of a verification request.
HANDSHAKES: Final = (
    "verified",
    "not_configured",
    "missing_parameter",
    "repeated_parameter",
    "wrong_mode",
    "bad_challenge",
    "wrong_token",
)
# Why the inbox fails.
FAILURES: Final = (
    "full",
    "slow",
    "locked",
    "read_only",
    "cannot_open",
    "vanished",
    "io_error",
    "corrupt",
    "newer",
    "foreign",
    "unsafe",
    "unreachable",
    "denied",
    "tls",
    "too_large",
    "error",
)
