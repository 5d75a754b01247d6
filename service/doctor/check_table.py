"""The checks, in the order in which they are made: what each can find, and which evidence it needs.

docs/meta.md has a row for each, made from `may_be_wrong` and `to_do` (`make docs`).
"""

import datetime as dt
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
from service.doctor.checks.notifications import Known
from service.doctor.checks.registration import RegistrationResult
from service.doctor.evidence import Circumstances, Evidence
from service.doctor.finding import Finding, FindingState
from service.outcomes import CheckId
from service.storage import engines

Result: TypeAlias = tuple[Sequence[Finding], Evidence]
_REGISTER: Final = "Register the right URL: `whatsapp-webhook subscribe URL --replace`."


@dataclass(frozen=True, slots=True, kw_only=True)
class DoctorCheck:
    """One check; *run* is None if another check reports its finding too."""

    id: CheckId
    may_be_wrong: str
    to_do: str
    run: Callable[[Evidence], Result] | None = None
    needs: Callable[[Evidence], bool] = lambda _: True


def _configuration(known: Evidence) -> Result:
    return [Finding.ok(CheckId.CONFIGURATION, "All settings are valid.")], known


def _credentials(known: Evidence) -> Result:
    about = known.about
    return list(credentials.check(about.credentials, about.problems, about.remedy)), known


def _service(known: Evidence) -> Result:
    if known.admin:
        return list(local_instance.readiness(known.admin)), known
    about = known.about
    if about.is_meant_here:
        finding = Finding.wrong(
            CheckId.SERVICE,
            f"No response from the admin listener at {loopback.reachable(about.config.admin_bind)} (/readyz).",
            "Check that the service is running: `whatsapp-webhook check` checks its configuration, `whatsapp-webhook "
            "serve` starts it.",
        )
    else:
        what = "The service does not run here, so its /readyz can't be checked."
        finding = Finding.unknown(CheckId.SERVICE, what, inbox.RUN_BESIDE_SERVICE)
    return [finding], known


def _counters(known: Evidence) -> Result:
    assert known.admin  # noqa: S101  as it needs
    return [local_instance.counters(known.admin, is_real=known.real_event is not None)], known


def _direct(known: Evidence) -> Result:
    about, test_ids = known.about, list(known.test_ids)
    caller = Caller(f"http://{loopback.reachable(about.config.bind)}{about.config.path}")
    is_alone = not engines.load(about.config.inbox).has_server
    finding, direct = notifications.check_directly(caller, about.credentials, test_ids, is_alone=is_alone)
    return [finding], replace(known, direct=direct, test_ids=tuple(test_ids))


def _url(known: Evidence) -> Result:
    """Validate the URL; if none was given, it is the registered one, which may be anything."""
    about, registered = known.about, _registration(known)
    url = about.url or registered.callback_url
    known = replace(known, registration=registered, url=url)
    if not url:
        what = "No public URL was given, so the path from the internet to the service was not checked."
        return [Finding.unknown(CheckId.URL, what, _command_from_outside(about))], known
    try:
        public_url(url)
    except ValueError as ex:
        what = f"The registered URL {url} is no URL that Meta can call: it {ex}."
        return [Finding.wrong(CheckId.URL, what, _REGISTER)], known
    endpoint = network.endpoint(url, in_cluster=about.in_cluster)
    return [network.form(endpoint)], replace(known, endpoint=endpoint)


def _name(known: Evidence) -> Result:
    assert known.endpoint  # noqa: S101  as it needs
    finding, addresses = network.name(known.endpoint)
    shown = [] if network.is_literal(known.endpoint.host) else [finding]
    return shown, replace(known, addresses=tuple(addresses))


def _connection(known: Evidence) -> Result:
    assert known.endpoint  # noqa: S101  as it needs
    finding, reached = network.connection(known.endpoint, list(known.addresses))
    return [finding], replace(known, reached=tuple(reached), is_open=bool(reached) and not known.endpoint.is_secure)


def _certificate(known: Evidence) -> Result:
    assert known.endpoint  # noqa: S101  as it needs
    finding = certificate.check(known.endpoint.host, list(known.reached))
    return [finding], replace(known, is_open=finding.state is FindingState.OK)


def _not_checked(known: Evidence) -> Result:
    assert known.endpoint  # noqa: S101  as it needs
    if not known.is_open:
        what = "No request was sent to the URL, because of the above: what answers there was not checked."
        return [Finding.unknown(CheckId.NOT_CHECKED, what, "Fix the above, then run the doctor again.")], known
    if not known.endpoint.is_secure and not all(loopback.is_loopback(str(each[0])) for each in known.reached):
        what = "No request was sent to the URL: without TLS, the verify token could be read on the way."
        finding = Finding.unknown(CheckId.NOT_CHECKED, what, "Run the doctor again with the https URL.")
        return [finding], replace(known, is_open=False)
    return [], known


def _answer(known: Evidence) -> Result:
    about, caller = known.about, Caller(known.url)
    token = about.credentials.verify_tokens[0] if about.has_credentials else b""
    finding, is_ours = responder.answers(caller, token)
    if is_ours and (differing := responder.differing_address(caller, [str(each[0]) for each in known.reached])):
        finding, is_ours = differing, False
    return [finding], replace(known, caller=caller if is_ours else None)


def _handshake(known: Evidence) -> Result:
    assert known.caller  # noqa: S101  as it needs
    about = known.about
    before = local_instance.counted(about.config, "handshakes")

    def reason() -> str | None:
        """Return the outcome of the one handshake that the service on this machine has counted since; else None."""
        after = local_instance.counted(about.config, "handshakes") if before else {}
        grown = [outcome for outcome, count in after.items() if count > before.get(outcome, 0)]
        if after and not grown:
            return handshake.NOT_RECEIVED
        return grown[0] if len(grown) == 1 else None

    return list(handshake.check(known.caller, about.credentials.verify_tokens[0], reason, known.direct)), known


def _notification(known: Evidence) -> Result:
    assert known.caller  # noqa: S101  as it needs
    about, test_ids = known.about, list(known.test_ids)
    explaining = Known(
        known.direct,
        known.registration.position == 1,
        lambda: local_instance.counted(about.config, "notifications").get("bad_signature"),
    )
    findings = list(notifications.check(known.caller, about.credentials.app_secrets[0], explaining, test_ids))
    by_url = len(test_ids) > len(known.test_ids)
    return findings, replace(known, test_ids=tuple(test_ids), is_accepted_by_url=by_url)


def _inbox(known: Evidence) -> Result:
    about = known.about
    finding = inbox.check(
        known.inbox,
        known.test_ids,
        about.config.fields,
        is_url_known=bool(about.url),
        by_url=known.is_accepted_by_url,
    )
    return [finding], known


def _registered(known: Evidence) -> Result:
    return known.registration.findings, known


def _registration(known: Evidence) -> RegistrationResult:
    about = known.about
    if not about.graphs:
        what = "No app was given, or its secret is not here, so the registration at Meta was not checked."
        return RegistrationResult([Finding.unknown(CheckId.APP, what, _command_from_outside(about))])
    result = registration.check(
        about.graphs,
        about.url,
        about.config.fields,
        about.accounts,
        known.real_event,
        directory=about.directory,
        today=dt.datetime.now(dt.UTC).date(),
    )
    if about.in_cluster and not result.is_reached:
        what = "The Graph API can't be reached from this pod; a network policy may forbid it."
        return RegistrationResult([Finding.unknown(CheckId.APP, what, _command_from_outside(about))])
    return result


def _command_from_outside(about: Circumstances) -> str:
    """Return the command for the checks that are not made from the pod."""
    app = about.graphs[0].keys.app_id if about.graphs else "ID"
    accounts = " ".join(f"--account {each}" for each in about.accounts or ("ID",))
    directory = shlex.quote(about.directory) if about.directory and not about.in_cluster else "DIRECTORY"
    url = shlex.quote(about.url) if about.url else "URL"
    command = f"whatsapp-webhook doctor --url {url} --app {app} {accounts} --credentials {directory}"
    where = "from outside the cluster" if about.in_cluster else "with these options"
    return f"Run the doctor {where}: {command}"


def _can_call(known: Evidence) -> bool:
    return known.caller is not None and known.about.has_credentials


CHECKS: Final = (
    DoctorCheck(
        id=CheckId.CONFIGURATION,
        may_be_wrong="a setting or a field is misspelt",
        to_do="correct it in the environment; in a cluster, in the chart's values",
        run=_configuration,
    ),
    DoctorCheck(
        id=CheckId.CREDENTIALS,
        may_be_wrong=(
            "a file is missing or has no value; a value is an example's, is encoded twice, is in quotes or has a name "
            "before it; both files contain the same value"
        ),
        to_do="copy the app secret again, without anything else; generate a token with `openssl rand -hex 16`",
        run=_credentials,
    ),
    DoctorCheck(
        id=CheckId.SERVICE,
        may_be_wrong="the service is not running, or not ready: it has no credentials, or can't open the inbox",
        to_do="run `whatsapp-webhook check`; see [the runbook](runbook.md)",
        run=_service,
    ),
    DoctorCheck(
        id=CheckId.COUNTERS,
        may_be_wrong=(
            "since the start, signatures or verify tokens were refused, and no real event was stored; `unknown`, since "
            "the requests may not have been Meta's"
        ),
        to_do=(
            "the app secret is another app's, or [something changes bodies](#a-refused-signature); enter the right "
            "verify token at Meta"
        ),
        run=_counters,
        needs=lambda known: known.admin is not None,
    ),
    DoctorCheck(
        id=CheckId.DIRECT,
        may_be_wrong="without a proxy between, the service does not accept line 1 of the credentials",
        to_do="check that it reads the same directory; a changed Secret reaches the pod within 90 s",
        run=_direct,
        needs=lambda known: known.admin is not None and known.about.has_credentials,
    ),
    DoctorCheck(
        id=CheckId.URL,
        may_be_wrong="it is `http`, has a `+` in its path, or an address that is not public",
        to_do="use a public name and `https`",
        run=_url,
    ),
    DoctorCheck(
        id=CheckId.NAME,
        may_be_wrong="it can't be resolved",
        to_do="create the DNS record, and wait",
        run=_name,
        needs=lambda known: known.endpoint is not None,
    ),
    DoctorCheck(
        id=CheckId.CONNECTION,
        may_be_wrong="the port does not accept connections",
        to_do="check that the load balancer is running, and that the port is open to the whole internet",
        run=_connection,
        needs=lambda known: bool(known.addresses),
    ),
    DoctorCheck(
        id=CheckId.CERTIFICATE,
        may_be_wrong=(
            "no TLS; the certificate is self-signed, expired, for another name, or of an untrusted authority; "
            "the intermediate certificates are not sent"
        ),
        to_do="get one of a public authority, for this name, and serve the full chain",
        run=_certificate,
        needs=lambda known: bool(known.reached and known.endpoint and known.endpoint.is_secure),
    ),
    DoctorCheck(
        id=CheckId.NOT_CHECKED,
        may_be_wrong=("no request was sent to the URL, because of one of the above, or because the URL has no TLS"),
        to_do="fix that first; use the `https` URL",
        run=_not_checked,
        needs=lambda known: known.endpoint is not None,
    ),
    DoctorCheck(
        id=CheckId.ANSWER,
        may_be_wrong=(
            "something other than the service answers: a redirect, a login, a firewall, a proxy without a working "
            "backend, another path, another application; one of several addresses answers differently; `unknown` if "
            "Meta's client certificate is required"
        ),
        to_do=(
            "register the URL that is redirected to; allow everybody to reach this path; check that the service is "
            "ready, and the address that the proxy has of it"
        ),
        run=_answer,
        needs=lambda known: known.is_open,
    ),
    DoctorCheck(
        id=CheckId.HANDSHAKE,
        may_be_wrong=(
            "the service accepts another verify token; another instance answered; the proxy drops the query string, or "
            "limits the rate of requests"
        ),
        to_do="put the same token into line 1 of `verify-token`, here and at the service; pass the query string on",
        run=_handshake,
        needs=_can_call,
    ),
    DoctorCheck(
        id=CheckId.QUERY_STRING,
        may_be_wrong="the proxy decodes it (`unknown`: Meta's handshake with this token succeeds)",
        to_do="pass it on unchanged; until then, use letters and digits in the token",
    ),
    DoctorCheck(
        id=CheckId.NOTIFICATION,
        may_be_wrong=(
            "the service accepts another app secret; another instance answered; the proxy drops "
            "`X-Hub-Signature-256`, changes the body, rejects POST requests or special characters, or answers 200 in "
            "the service's place"
        ),
        to_do="put the app's secret into line 1 of `app-secret`; pass header and body on unchanged",
        run=_notification,
        needs=_can_call,
    ),
    DoctorCheck(
        id=CheckId.BODY_LIMIT,
        may_be_wrong="something in front of the service accepts only small bodies, often 1 MB",
        to_do="raise its body limit to 4 MB",
    ),
    DoctorCheck(
        id=CheckId.INBOX,
        may_be_wrong="`messages` are not stored (`unknown`: it may be intended); another instance answered",
        to_do="add `messages` to `WEBHOOK_FIELDS`; check where the URL sends requests",
        run=_inbox,
    ),
    DoctorCheck(
        id=CheckId.APP,
        may_be_wrong="the secret is another app's; there is no app with this id",
        to_do="copy both again",
        run=_registered,
    ),
    DoctorCheck(
        id=CheckId.GRAPH_VERSION,
        may_be_wrong="`unknown`: Meta ends the version within 90 days, or answered with another one",
        to_do="set `WEBHOOK_GRAPH_VERSION` to a newer version, or remove it",
    ),
    DoctorCheck(
        id=CheckId.APP_LIVE,
        may_be_wrong="the app is in development mode: it has no privacy policy",
        to_do="[publish the app](#5-publish-the-app)",
    ),
    DoctorCheck(
        id=CheckId.CALLBACK,
        may_be_wrong=(
            "no URL is registered, or another one, and no override sends here (`unknown` if a real event was stored "
            "and no account was checked); Meta has disabled the subscription"
        ),
        to_do="`subscribe`; with `--replace`; with `--force`",
    ),
    DoctorCheck(
        id=CheckId.FIELDS,
        may_be_wrong="the app is not subscribed to `messages`, or to another field that the service stores",
        to_do="`subscribe` with `--fields`",
    ),
    DoctorCheck(
        id=CheckId.ACCOUNTS,
        may_be_wrong="the app is not subscribed; the access token has expired, or may not see the account",
        to_do="`subscribe` with `--account`; generate a new token; give the system user full control",
    ),
    DoctorCheck(
        id=CheckId.OVERRIDES,
        may_be_wrong=("an account's events are sent to another URL; `unknown` if only some are, which may be intended"),
        to_do="`subscribe` with `--drop-overrides`, if they should be sent here",
    ),
)
