"""The input of the doctor, and what its checks have found out."""

from dataclasses import dataclass, field
from typing import Any

from service.config import Config
from service.credentials import Credentials
from service.doctor.caller import Caller
from service.doctor.checks.local_instance import AdminResponses, InboxReader
from service.doctor.checks.network import Endpoint
from service.doctor.checks.registration import RegistrationResult
from service.doctor.checks.responder import DirectResult
from service.meta.graph.client import Graph


@dataclass(frozen=True, slots=True, kw_only=True)
class Circumstances:
    """Where the doctor runs, and its input."""

    config: Config
    credentials: Credentials
    problems: tuple[str, ...]  # of the credentials' files
    remedy: str  # for these problems: where to put the files
    directory: str | None  # of the credentials, if the commands of a remedy need it as an option
    url: str  # the callback URL, empty if unknown
    graphs: tuple[Graph, ...]  # one for each app secret; none if no app was named
    accounts: tuple[str, ...]
    is_meant_here: bool  # the configuration says that the service runs on this machine, or in this pod
    in_cluster: bool

    @property
    def has_credentials(self) -> bool:
        """Return whether there are a verify token and an app secret, so that requests can be made as Meta does."""
        return bool(self.credentials.verify_tokens and self.credentials.app_secrets)


@dataclass(frozen=True, slots=True, kw_only=True)
class Evidence:
    """What is known; each check returns it with its own results added."""

    about: Circumstances
    admin: AdminResponses | None = None  # of the service on this machine
    inbox: InboxReader | str = ""  # its inbox, or why it can't be read
    real_event: str | None = None  # a sentence about an event that only a live app sends
    direct: DirectResult | None = None  # of requests sent to the service without the proxy
    registration: RegistrationResult = field(default_factory=lambda: RegistrationResult([]))
    url: str = ""  # that is checked: the one that was given, else the registered one
    endpoint: Endpoint | None = None
    addresses: tuple[tuple[Any, ...], ...] = ()  # of its host name
    reached: tuple[tuple[Any, ...], ...] = ()  # those of them that accept connections
    is_open: bool = False  # requests with the verify token can be sent to the URL
    caller: Caller | None = None  # of the URL, if the service answers there
    test_ids: tuple[str, ...] = ()  # of test messages that were answered 200
    is_accepted_by_url: bool = False  # whether one of them was sent to the URL
