"""Reading the configuration from the environment, the same way in every command."""

from collections.abc import Mapping

from service import config
from service.config import Config
from service.meta import webhook_fields
from service.storage import engines


def configured(environ: Mapping[str, str]) -> Config:
    """Return the configuration; raises ConfigurationError with every problem."""
    return config.load(environ, known_fields=webhook_fields.FIELDS, inbox_problems=engines.problems)
