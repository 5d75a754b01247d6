"""The looks in their order: configuration, credentials, the service, the way to it from outside, what is at Meta."""

import shlex
from collections.abc import Iterator, Mapping
from contextlib import closing, nullcontext
from dataclasses import dataclass
from typing import Final

from service import loopback
from service.config import Config, public_url
from service.credentials import Credentials
from service.doctor.caller import Caller
from service.doctor.checks import (
    credentials,
    handshake,
    local_instance,
    network,
    notifications,
    registration,
    responder,
)
from service.doctor.checks.local_instance import Kept, Said
from service.doctor.checks.notifications import Sides
from service.doctor.checks.registration import AtMeta
from service.doctor.checks.responder import Direct
from service.doctor.finding import Finding
from service.errors import InboxUnavailable
from service.events import rfc3339
from service.meta import webhook_fields
from service.meta.graph.client import Graph
from service.storage import engines

_BESIDE: Final = (
    "Run it where the service runs: whatsapp-webhook doctor, on its machine and with its settings; "
    "in a cluster: kubectl -n NAMESPACE exec POD -- whatsapp-webhook doctor"
)
_REGISTER: Final = "Register the right one: `whatsapp-webhook subscribe URL --replace`."


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
        """Say whether a verify token and an app secret are there, so that the service can be asked as Meta does."""
        return bool(self.credentials.verify_tokens and self.credentials.app_secrets)


def diagnose(about: Circumstances) -> Iterator[Finding]:
    """Look at everything that can be seen from here, in the order in which a person would."""
    yield Finding.ok("configuration", "Every setting can be read.")
    yield from credentials.look(about.credentials, about.problems, about.remedy)
    said = local_instance.ask(about.config)
    kept = local_instance.opened(about.config.inbox) if said else ""
    with closing(kept) if isinstance(kept, Kept) else nullcontext():
        yield from _beyond_files(about, said, kept)


def _beyond_files(about: Circumstances, said: Said | None, kept: Kept | str) -> Iterator[Finding]:
    """Look at the service, the way to it, and Meta; *kept* is its inbox, or why that can't be read."""
    taken: list[str] = []  # ids of test messages that were answered 200
    real = _real(kept) if isinstance(kept, Kept) else None
    direct: Direct | None = None
    if said:
        yield from local_instance.readiness(said)
        yield local_instance.history(said, is_real=real is not None)
        if about.has_credentials:
            is_alone = not engines.load(about.config.inbox).has_server
            itself, direct = notifications.ask_directly(
                _itself(about.config), about.credentials, taken, is_alone=is_alone
            )
            yield itself
    else:
        yield _absent(about)
    directly = len(taken)
    at_meta = _at_meta(about, real)
    url = about.url or at_meta.callback_url
    sides = Sides(
        direct,
        at_meta.position == 1,
        lambda: local_instance.counted(about.config, "notifications").get("bad_signature"),
    )
    yield from _outside(about, url, sides, taken) if url else [_no_url(about)]
    yield _kept(about, kept, taken, by_url=len(taken) > directly)
    yield from at_meta.findings


def _absent(about: Circumstances) -> Finding:
    if about.is_meant_here:
        return Finding.wrong(
            local_instance.READY,
            f"Nothing answers on {loopback.reachable(about.config.admin_bind)}, where its /readyz should be.",
            "Does it run? `whatsapp-webhook check` looks at the configuration, `whatsapp-webhook serve` starts it.",
        )
    return Finding.unknown(local_instance.READY, "The service does not run here, so its /readyz is not seen.", _BESIDE)


def _itself(config: Config) -> Caller:
    return Caller(f"http://{loopback.reachable(config.bind)}{config.path}")


def _no_url(about: Circumstances) -> Finding:
    return Finding.unknown("url", "No public URL was given, so the way from outside is not seen.", _outside_of(about))


def _outside_of(about: Circumstances) -> str:
    """Say how the half is seen that is not the pod's."""
    app = about.graphs[0].keys.app_id if about.graphs else "ID"
    accounts = " ".join(f"--account {each}" for each in about.accounts or ("ID",))
    directory = shlex.quote(about.directory) if about.directory and not about.in_cluster else "DIRECTORY"
    url = shlex.quote(about.url) if about.url else "URL"
    command = f"whatsapp-webhook doctor --url {url} --app {app} {accounts} --credentials {directory}"
    return f"Run it from outside of the cluster: {command}" if about.in_cluster else f"Say which: {command}"


def _outside(about: Circumstances, url: str, sides: Sides, taken: list[str]) -> Iterator[Finding]:
    """Walk from outside in, as far as it leads; *url* may be what somebody registered, and so anything."""
    try:
        public_url(url)
    except ValueError as ex:
        yield Finding.wrong("url", f"{url}, which is registered, is no URL that Meta can call: it {ex}.", _REGISTER)
        return
    where = network.place(url, in_cluster=about.in_cluster)
    found, addresses = network.walk(where)
    yield from found
    if not addresses:
        yield Finding.unknown(
            "beyond", "What comes after that was not looked at.", "Mend that first, and run this again."
        )
        return
    if not where.is_secure and not all(loopback.is_loopback(str(each[0])) for each in addresses):
        what = "Nothing was sent there: without TLS, whoever is on the way could read the verify token."
        yield Finding.unknown("beyond", what, "Run this again with the https URL.")
        return
    caller = Caller(url)
    token = about.credentials.verify_tokens[0] if about.has_credentials else b""
    answered, is_ours = responder.who(caller, token)
    if is_ours and (other := responder.otherwise(caller, [str(each[0]) for each in addresses])):
        answered, is_ours = other, False
    yield answered
    if is_ours and about.has_credentials:
        before = local_instance.counted(about.config, "handshakes")
        yield from handshake.look(caller, token, lambda: _more(before, about), sides.direct)
        yield from notifications.send(caller, about.credentials.app_secrets[0], sides, taken)


def _more(before: Mapping[str, float], about: Circumstances) -> str | None:
    """Say which outcome of a handshake the service here has counted since: None where it can't be told."""
    after = local_instance.counted(about.config, "handshakes") if before else {}
    more = [outcome for outcome, count in after.items() if count > before.get(outcome, 0)]
    if after and not more:
        return handshake.NOT_HERE
    return more[0] if len(more) == 1 else None


def _kept(about: Circumstances, kept: Kept | str, messages: list[str], *, by_url: bool) -> Finding:
    check = "inbox"
    if not messages:
        what = "No test notification was taken, so none can be looked for."
        return Finding.unknown(check, what, "Mend the above first." if about.url or kept else _BESIDE)
    if not isinstance(kept, Kept):
        remedy = "whatsapp-webhook events list, where the inbox is: the newest are those of this test."
        return Finding.unknown(check, kept or "The inbox is not seen from here.", remedy)
    try:
        is_there = kept.has(messages)
    except InboxUnavailable as ex:
        return Finding.unknown(check, f"The inbox can't be read: {ex.detail}.", "whatsapp-webhook events list")
    fields = about.config.fields
    if is_there:
        all_of = "The test notifications are there, marked as tests, which destinations skip."
        direct = "The test notification that was sent directly is there; by the URL none was taken."
        return Finding.ok(check, all_of if by_url else direct)
    if fields and webhook_fields.MESSAGES_FIELD not in fields:
        return Finding.unknown(
            check,
            "What people write is answered 200 and not kept: WEBHOOK_FIELDS does not name messages.",
            "If that is not meant: add messages to WEBHOOK_FIELDS, or leave it empty to keep all.",
        )
    return Finding.wrong(
        check,
        "The test notifications were answered 200, and are not in this inbox.",
        "Another instance answered: look at where the URL leads, and at its WEBHOOK_INBOX.",
    )


def _real(kept: Kept) -> str | None:
    """Say of an event that no test is; None where there is none."""
    try:
        event = kept.newest_real()
    except InboxUnavailable:
        return None
    return f"something real came, at {rfc3339(event.received_at)[:19]}Z." if event else None


def _at_meta(about: Circumstances, real: str | None) -> AtMeta:
    if not about.graphs:
        what = "No app was named, or its secret is not here: what is registered at Meta is not seen."
        return AtMeta([Finding.unknown(registration.APP, what, _outside_of(about))])
    found = registration.look(
        about.graphs, about.url, about.config.fields, about.accounts, real, directory=about.directory
    )
    if about.in_cluster and not found.is_reached:
        what = "The Graph API can't be reached from this pod, which its network policy may forbid."
        return AtMeta([Finding.unknown(registration.APP, what, _outside_of(about))])
    return found
