"""The configuration from the environment, as every command reads it."""

from collections.abc import Mapping

from service import config
from service.config import Config
from service.meta import webhook_fields
from service.storage import engines


def configured(environ: Mapping[str, str]) -> Config:
    """Read the configuration; raises ConfigurationError with all that is wrong."""
    return config.load(environ, known_fields=webhook_fields.FIELDS, inbox_problems=engines.problems)
