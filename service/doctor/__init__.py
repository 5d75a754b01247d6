"""Why nothing arrives: looks where a person would, in the order a person would, and names the cause with its remedy."""

from service.doctor.diagnosis import diagnose
from service.doctor.evidence import Circumstances
from service.doctor.finding import Finding, FindingState

__all__ = ["Circumstances", "Finding", "FindingState", "diagnose"]
