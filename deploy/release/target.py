"""What a release publishes, and where."""

from pathlib import Path
from typing import NamedTuple


class Target(NamedTuple):
    """What is published where: *image* and *charts* are `registry/name`."""

    image: str
    digest: str
    charts: str
    version: str
    source: str  # the URL of the repository
    out: Path
    key: str  # prefix of the files of a key pair; empty: keyless
    is_rehearsal: bool  # with a registry on this machine, before the changes have a version
