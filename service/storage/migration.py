"""A step of a schema's history, for the engines that have tables."""

from typing import NamedTuple


class Migration(NamedTuple):
    """A step that migrates the tables from one version to the next.

    A program of version *works_with* or later still works with the migrated tables, so a rolling update needs no
    downtime, and a rollback is possible. A step that removes something must be released after the version that no
    longer needs it. Never change a step that was released.
    """

    statements: str
    works_with: int
