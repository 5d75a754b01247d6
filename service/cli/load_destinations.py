"""Reading the destinations file, the same way in every command."""

from collections.abc import Mapping
from pathlib import Path

from service.cli.load_config import configured
from service.errors import ConfigurationError
from service.relay import destinations
from service.relay.destinations import Destination


def destinations_file(environ: Mapping[str, str]) -> Path:
    """Return the path of WEBHOOK_DESTINATIONS; raises ConfigurationError if it is not set."""
    path = configured(environ).destinations
    if not path:
        raise ConfigurationError(["WEBHOOK_DESTINATIONS is not set. Set it to the path of the destinations file."])
    return Path(path)


def configured_destinations(environ: Mapping[str, str]) -> Mapping[str, Destination]:
    """Return the destinations of the file, by name; raises ConfigurationError with every problem."""
    path = destinations_file(environ)
    try:
        content = path.read_bytes()
    except OSError as ex:
        raise ConfigurationError([f"{path}: {ex.strerror}"]) from ex
    return {each.name: each for each in destinations.parse(content, str(path))}
