"""What one POST to a destination resulted in."""

from typing import Final, NamedTuple

from service.outcomes import AttemptOutcome
from service.storage.deliveries import AttemptEvidence

NO_ANSWER: Final = 0  # the status of an attempt without a response


class DeliveryResponse(NamedTuple):
    """The result of one POST: the status (0 if there was no response), the outcome, and its Retry-After header.

    *evidence* is None if it was delivered. *seconds* is how long it took.
    """

    status: int
    outcome: AttemptOutcome
    retry_after: str | None = None
    evidence: AttemptEvidence | None = None
    seconds: float = 0.0
