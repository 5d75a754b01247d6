"""The checks, in the order in which a person would make them: the one table of what is checked, and when it can be.

The page for the set-up at Meta has a row for each, made from `may_be_wrong` and `to_do` (`make docs`).
"""

import shlex
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Final, TypeAlias

from service import loopback
from service.config import public_url
from service.doctor.caller import Caller
from service.doctor.checks import (
    certificate,
    credentials,
    handshake,
    inbox,
    local_instance,
    network,
    notifications,
    registration,
    responder,
)
from service.doctor.checks.notifications import Sides
from service.doctor.checks.registration import AtMeta
from service.doctor.evidence import Circumstances, Evidence
from service.doctor.finding import Finding, FindingState
from service.outcomes import CheckId
from service.storage import engines

Result: TypeAlias = tuple[Sequence[Finding], Evidence]
_REGISTER: Final = "Register the right one: `whatsapp-webhook subscribe URL --replace`."


@dataclass(frozen=True, slots=True, kw_only=True)
class DoctorCheck:
    """One check; *run* is None if the check before it reports its finding too."""

    id: CheckId
    may_be_wrong: str
    to_do: str
    run: Callable[[Evidence], Result] | None = None
    needs: Callable[[Evidence], bool] = lambda _: True


def _configuration(known: Evidence) -> Result:
    return [Finding.ok(CheckId.CONFIGURATION, "Every setting can be read.")], known


def _credentials(known: Evidence) -> Result:
    about = known.about
    return list(credentials.look(about.credentials, about.problems, about.remedy)), known


def _service(known: Evidence) -> Result:
    if known.said:
        return list(local_instance.readiness(known.said)), known
    about = known.about
    if about.is_meant_here:
        finding = Finding.wrong(
            CheckId.SERVICE,
            f"Nothing answers on {loopback.reachable(about.config.admin_bind)}, where its /readyz should be.",
            "Does it run? `whatsapp-webhook check` looks at the configuration, `whatsapp-webhook serve` starts it.",
        )
    else:
        what = "The service does not run here, so its /readyz is not seen."
        finding = Finding.unknown(CheckId.SERVICE, what, inbox.BESIDE)
    return [finding], known


def _so_far(known: Evidence) -> Result:
    assert known.said  # noqa: S101  as it needs
    return [local_instance.history(known.said, is_real=known.real is not None)], known


def _service_itself(known: Evidence) -> Result:
    about, taken = known.about, list(known.test_ids)
    caller = Caller(f"http://{loopback.reachable(about.config.bind)}{about.config.path}")
    is_alone = not engines.load(about.config.inbox).has_server
    finding, direct = notifications.ask_directly(caller, about.credentials, taken, is_alone=is_alone)
    return [finding], replace(known, direct=direct, test_ids=tuple(taken))


def _url(known: Evidence) -> Result:
    """Read the URL; if none was given, it is the registered one, which may be anything."""
    about, at_meta = known.about, _at_meta(known)
    url = about.url or at_meta.callback_url
    known = replace(known, at_meta=at_meta, url=url)
    if not url:
        what = "No public URL was given, so the way from outside is not seen."
        return [Finding.unknown(CheckId.URL, what, _outside_of(about))], known
    try:
        public_url(url)
    except ValueError as ex:
        what = f"{url}, which is registered, is no URL that Meta can call: it {ex}."
        return [Finding.wrong(CheckId.URL, what, _REGISTER)], known
    place = network.place(url, in_cluster=about.in_cluster)
    return [network.form(place)], replace(known, place=place)


def _name(known: Evidence) -> Result:
    assert known.place  # noqa: S101  as it needs
    finding, addresses = network.name(known.place)
    shown = [] if network.is_literal(known.place.host) else [finding]
    return shown, replace(known, addresses=tuple(addresses))


def _connection(known: Evidence) -> Result:
    assert known.place  # noqa: S101  as it needs
    finding, reached = network.connection(known.place, list(known.addresses))
    return [finding], replace(known, reached=tuple(reached), is_open=bool(reached) and not known.place.is_secure)


def _certificate(known: Evidence) -> Result:
    assert known.place  # noqa: S101  as it needs
    finding = certificate.look(known.place.host, list(known.reached))
    return [finding], replace(known, is_open=finding.state is FindingState.OK)


def _beyond(known: Evidence) -> Result:
    assert known.place  # noqa: S101  as it needs
    if not known.is_open:
        what = "What comes after that was not looked at."
        return [Finding.unknown(CheckId.BEYOND, what, "Mend that first, and run this again.")], known
    if not known.place.is_secure and not all(loopback.is_loopback(str(each[0])) for each in known.reached):
        what = "Nothing was sent there: without TLS, whoever is on the way could read the verify token."
        finding = Finding.unknown(CheckId.BEYOND, what, "Run this again with the https URL.")
        return [finding], replace(known, is_open=False)
    return [], known


def _answer(known: Evidence) -> Result:
    about, caller = known.about, Caller(known.url)
    token = about.credentials.verify_tokens[0] if about.has_credentials else b""
    finding, is_ours = responder.who(caller, token)
    if is_ours and (other := responder.otherwise(caller, [str(each[0]) for each in known.reached])):
        finding, is_ours = other, False
    return [finding], replace(known, caller=caller if is_ours else None)


def _handshake(known: Evidence) -> Result:
    assert known.caller  # noqa: S101  as it needs
    about = known.about
    before = local_instance.counted(about.config, "handshakes")

    def why() -> str | None:
        """Return the outcome of a handshake that the service here has counted since; None if it can't be told."""
        after = local_instance.counted(about.config, "handshakes") if before else {}
        more = [outcome for outcome, count in after.items() if count > before.get(outcome, 0)]
        if after and not more:
            return handshake.NOT_HERE
        return more[0] if len(more) == 1 else None

    return list(handshake.look(known.caller, about.credentials.verify_tokens[0], why, known.direct)), known


def _notification(known: Evidence) -> Result:
    assert known.caller  # noqa: S101  as it needs
    about, taken = known.about, list(known.test_ids)
    sides = Sides(
        known.direct,
        known.at_meta.position == 1,
        lambda: local_instance.counted(about.config, "notifications").get("bad_signature"),
    )
    findings = list(notifications.send(known.caller, about.credentials.app_secrets[0], sides, taken))
    by_url = len(taken) > len(known.test_ids)
    return findings, replace(known, test_ids=tuple(taken), is_taken_by_url=by_url)


def _inbox(known: Evidence) -> Result:
    about = known.about
    finding = inbox.look(
        known.kept,
        known.test_ids,
        about.config.fields,
        is_url_known=bool(about.url),
        by_url=known.is_taken_by_url,
    )
    return [finding], known


def _registered(known: Evidence) -> Result:
    return known.at_meta.findings, known


def _at_meta(known: Evidence) -> AtMeta:
    about = known.about
    if not about.graphs:
        what = "No app was named, or its secret is not here: what is registered at Meta is not seen."
        return AtMeta([Finding.unknown(CheckId.APP, what, _outside_of(about))])
    found = registration.look(
        about.graphs, about.url, about.config.fields, about.accounts, known.real, directory=about.directory
    )
    if about.in_cluster and not found.is_reached:
        what = "The Graph API can't be reached from this pod, which its network policy may forbid."
        return AtMeta([Finding.unknown(CheckId.APP, what, _outside_of(about))])
    return found


def _outside_of(about: Circumstances) -> str:
    """Return how the half is seen that is not the pod's."""
    app = about.graphs[0].keys.app_id if about.graphs else "ID"
    accounts = " ".join(f"--account {each}" for each in about.accounts or ("ID",))
    directory = shlex.quote(about.directory) if about.directory and not about.in_cluster else "DIRECTORY"
    url = shlex.quote(about.url) if about.url else "URL"
    command = f"whatsapp-webhook doctor --url {url} --app {app} {accounts} --credentials {directory}"
    return f"Run it from outside of the cluster: {command}" if about.in_cluster else f"Say which: {command}"


def _can_call(known: Evidence) -> bool:
    return known.caller is not None and known.about.has_credentials


CHECKS: Final = (
    DoctorCheck(
        id=CheckId.CONFIGURATION,
        may_be_wrong="a setting or a field is misspelt",
        to_do="correct it in the environment, in a cluster in the chart's values",
        run=_configuration,
    ),
    DoctorCheck(
        id=CheckId.CREDENTIALS,
        may_be_wrong=(
            "no file, or no value in it; an example's value; encoded twice, in quotes, with a name "
            "before it; both hold the same"
        ),
        to_do="copy the app secret again, alone; make a token with `openssl rand -hex 16`",
        run=_credentials,
    ),
    DoctorCheck(
        id=CheckId.SERVICE,
        may_be_wrong="not running, or not ready: no credentials, the inbox can't be opened",
        to_do="`whatsapp-webhook check`; [the runbook](runbook.md)",
        run=_service,
    ),
    DoctorCheck(
        id=CheckId.SO_FAR,
        may_be_wrong=(
            "since the start signatures were refused, or handshakes for their token, and nothing "
            "real came: `unknown`, since they may have been somebody else's"
        ),
        to_do=(
            "the app secret is another app's, or [something changes bodies](#a-refused-signature); "
            "enter the right token at Meta"
        ),
        run=_so_far,
        needs=lambda known: known.said is not None,
    ),
    DoctorCheck(
        id=CheckId.SERVICE_ITSELF,
        may_be_wrong="asked without anything between, it does not take line 1 of the credentials",
        to_do="does it read the same directory? a mounted Secret takes up to 90 s",
        run=_service_itself,
        needs=lambda known: known.said is not None and known.about.has_credentials,
    ),
    DoctorCheck(
        id=CheckId.URL,
        may_be_wrong="`http`, a `+` in the path, an address that nobody reaches",
        to_do="a public name and `https`",
        run=_url,
    ),
    DoctorCheck(
        id=CheckId.NAME,
        may_be_wrong="not found",
        to_do="make the DNS record, and wait",
        run=_name,
        needs=lambda known: known.place is not None,
    ),
    DoctorCheck(
        id=CheckId.CONNECTION,
        may_be_wrong="nobody takes connections",
        to_do="is the load balancer up, and the port open to the whole internet?",
        run=_connection,
        needs=lambda known: bool(known.addresses),
    ),
    DoctorCheck(
        id=CheckId.CERTIFICATE,
        may_be_wrong=(
            "no TLS, self-signed, expired, for another name, of an authority that nobody trusts, the "
            "intermediate ones missing"
        ),
        to_do="one of a public authority, for this name, with the full chain",
        run=_certificate,
        needs=lambda known: bool(known.reached and known.place and known.place.is_secure),
    ),
    DoctorCheck(
        id=CheckId.BEYOND,
        may_be_wrong=(
            "something of the above, so that nothing after it could be looked at; or the URL has no "
            "TLS, so that nothing was sent there"
        ),
        to_do="correct that first; take the `https` URL",
        run=_beyond,
        needs=lambda known: known.place is not None,
    ),
    DoctorCheck(
        id=CheckId.ANSWER,
        may_be_wrong=(
            "a redirect, a login, a firewall, a proxy with nothing behind it, another path, another "
            "application; one of several addresses that answers otherwise; `unknown` where Meta's "
            "client certificate is wanted"
        ),
        to_do=(
            "enter the URL that answers itself; let everybody through to this path; is the service "
            "ready, and the proxy's address of it right?"
        ),
        run=_answer,
        needs=lambda known: known.is_open,
    ),
    DoctorCheck(
        id=CheckId.HANDSHAKE,
        may_be_wrong=(
            "another verify token is in force there; another instance answered; the proxy drops the "
            "query string, or limits how often it is called"
        ),
        to_do="the same token into line 1 of `verify-token`, here and there; pass the query on",
        run=_handshake,
        needs=_can_call,
    ),
    DoctorCheck(
        id=CheckId.QUERY_STRING,
        may_be_wrong="the proxy decodes it (`unknown`: what Meta sends with this token gets through)",
        to_do="pass it on as it is; until then, letters and digits in the token",
    ),
    DoctorCheck(
        id=CheckId.NOTIFICATION,
        may_be_wrong=(
            "another app secret is in force there; another instance answered; the proxy drops "
            "`X-Hub-Signature-256`, changes the body, lets no POST through, refuses odd characters, "
            "or answers 200 in the service's place"
        ),
        to_do="the app's secret into line 1 of `app-secret`; pass header and body on as they are",
        run=_notification,
        needs=_can_call,
    ),
    DoctorCheck(
        id=CheckId.BODY_LIMIT,
        may_be_wrong="something before the service takes 1 MB",
        to_do="raise its limit to 4 MB",
    ),
    DoctorCheck(
        id=CheckId.INBOX,
        may_be_wrong="`messages` are not kept (`unknown`: it may be meant); another instance answered",
        to_do="add `messages` to `WEBHOOK_FIELDS`; see where the URL leads",
        run=_inbox,
    ),
    DoctorCheck(
        id=CheckId.APP,
        may_be_wrong="the secret is another app's; there is no app with this id",
        to_do="copy both again",
        run=_registered,
    ),
    DoctorCheck(
        id=CheckId.APP_LIVE,
        may_be_wrong="development mode: no privacy policy",
        to_do="[publish the app](#5-publish-the-app)",
    ),
    DoctorCheck(
        id=CheckId.CALLBACK,
        may_be_wrong=(
            "nothing registered, or another URL, and no override that sends here (`unknown` where "
            "something real came and no account was looked at); Meta has switched it off"
        ),
        to_do="`subscribe`; with `--replace`; with `--force`",
    ),
    DoctorCheck(
        id=CheckId.FIELDS,
        may_be_wrong="`messages`, or another field that the service keeps, is not chosen",
        to_do="`subscribe` with `--fields`",
    ),
    DoctorCheck(
        id=CheckId.ACCOUNTS,
        may_be_wrong="the app is not subscribed; the access token has expired, or may not see the account",
        to_do="`subscribe` with `--account`; make a new token; give the system user full control",
    ),
    DoctorCheck(
        id=CheckId.OVERRIDES,
        may_be_wrong=(
            "all that comes for an account is sent elsewhere; `unknown` where it is a part, which may be meant"
        ),
        to_do="`subscribe` with `--drop-overrides`, if it is to come here",
    ),
)
