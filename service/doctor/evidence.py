"""What the doctor was given, and what the checks have found out so far."""

from dataclasses import dataclass, field
from typing import Any

from service.config import Config
from service.credentials import Credentials
from service.doctor.caller import Caller
from service.doctor.checks.local_instance import Kept, Said
from service.doctor.checks.network import Place
from service.doctor.checks.registration import AtMeta
from service.doctor.checks.responder import Direct
from service.meta.graph.client import Graph


@dataclass(frozen=True, slots=True, kw_only=True)
class Circumstances:
    """Where the doctor is, and what it was given."""

    config: Config
    credentials: Credentials
    problems: tuple[str, ...]  # of the credentials' files
    remedy: str  # where to put them
    directory: str | None  # where they are, if a command must be told
    url: str  # that Meta calls, empty for unknown
    graphs: tuple[Graph, ...]  # one for each app secret, none where no app was named
    accounts: tuple[str, ...]
    is_meant_here: bool  # the configuration says that the service runs on this machine, or in this pod
    in_cluster: bool

    @property
    def has_credentials(self) -> bool:
        """Return whether a verify token and an app secret are there, so that the service can be asked as Meta does."""
        return bool(self.credentials.verify_tokens and self.credentials.app_secrets)


@dataclass(frozen=True, slots=True, kw_only=True)
class Evidence:
    """What is known; each check returns it with what it has found out."""

    about: Circumstances
    said: Said | None = None  # by the admin listener of the service here
    kept: Kept | str = ""  # its inbox, or why that can't be read
    real: str | None = None  # a sentence about an event that only a live app sends
    direct: Direct | None = None  # what the service here takes, asked with nothing between
    at_meta: AtMeta = field(default_factory=lambda: AtMeta([]))
    url: str = ""  # that is looked at: the one that was given, else the one that is registered
    place: Place | None = None
    addresses: tuple[tuple[Any, ...], ...] = ()  # of its name
    reached: tuple[tuple[Any, ...], ...] = ()  # that take connections
    is_open: bool = False  # there is a way to it on which the verify token may be sent
    caller: Caller | None = None  # of the URL, if the service answers there
    test_ids: tuple[str, ...] = ()  # of test messages that were answered 200
    is_taken_by_url: bool = False  # whether one of them was sent to the URL
