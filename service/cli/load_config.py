"""What commands share: the configuration from the environment, every problem at once."""

from collections.abc import Mapping

from service import config
from service.config import Config
from service.errors import ConfigurationError
from service.meta import webhook_fields
from service.storage import engines


def configured(environ: Mapping[str, str]) -> Config:
    """Read the configuration; raises ConfigurationError with all that is wrong."""
    found = config.load(environ, known_fields=webhook_fields.FIELDS)
    problems = engines.problems(found.inbox)
    if problems:
        raise ConfigurationError(problems)
    return found
