"""What commands share: the configuration from the environment, every problem at once."""

from collections.abc import Mapping

from service import config, fields, tracing
from service.config import Config
from service.errors import ConfigurationError
from service.inbox import engine


def configured(environ: Mapping[str, str]) -> Config:
    """Read the configuration, `OTEL_*` included; raises ConfigurationError with all that is wrong."""
    problems = tracing.problems(environ)
    try:
        found = config.load(environ, known_fields=fields.FIELDS)
    except ConfigurationError as ex:
        raise ConfigurationError([*ex.problems, *problems]) from ex
    problems += engine.problems(found.inbox)
    if problems:
        raise ConfigurationError(problems)
    return found
