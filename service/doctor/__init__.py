"""Why no notifications arrive: checks the set-up step by step and names the first cause, with its remedy."""

from service.doctor.diagnosis import diagnose
from service.doctor.evidence import Circumstances
from service.doctor.finding import Finding, FindingState

__all__ = ["Circumstances", "Finding", "FindingState", "diagnose"]
