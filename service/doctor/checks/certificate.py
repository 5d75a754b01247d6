"""The certificate of the public URL, checked against the authorities that this machine trusts."""

import socket
import ssl
import time
from collections.abc import Sequence
from typing import Any, Final

from service.doctor.caller import may_require_certificate
from service.doctor.finding import Finding, FindingState
from service.outcomes import CheckId

Address = tuple[Any, ...]  # as in the socket module: host, port, and more for IPv6
CERTIFICATE_TIMEOUT_SECONDS: Final = 5.0
EXPIRES_SOON_DAYS: Final = 14
MAX_LISTED_NAMES: Final = 10
SEE_CLIENT_CERTIFICATE: Final = (
    "See docs/kubernetes.md about Meta's client certificate. To see whether Meta's own requests arrive, run the doctor "
    "in the pod and read `counters`."
)


def check(host: str, addresses: Sequence[Address]) -> Finding:
    """Do the TLS handshake at each address; return the first finding that is not ok, if there is one."""
    found = [(address, _check(host, address)) for address in addresses]
    for address, finding in found:
        if finding.state is not FindingState.OK:
            at = f"At {address[0]}: " if len(addresses) > 1 else ""
            return finding._replace(detail=at + finding.detail)
    return found[0][1]


def _check(host: str, address: Address) -> Finding:
    try:
        certificate = _certificate_of(host, address, ssl.create_default_context())
    except ssl.SSLCertVerificationError as ex:
        return Finding.wrong(CheckId.CERTIFICATE, *_of_verification(ex, host, address))
    except (ssl.SSLError, OSError) as ex:
        if may_require_certificate(ex):
            return Finding.unknown(
                CheckId.CERTIFICATE,
                "The server aborted the TLS handshake. It may require a client certificate, which Meta has and this "
                "machine does not; or it does not know this host name.",
                SEE_CLIENT_CERTIFICATE,
            )
        what = ex.reason or str(ex) if isinstance(ex, ssl.SSLError) else str(ex)
        return Finding.wrong(
            CheckId.CERTIFICATE,
            f"The TLS handshake failed: {what}.",
            "Check that this port serves TLS, with a certificate for this name; see the proxy's log.",
        )
    days = int((ssl.cert_time_to_seconds(certificate["notAfter"]) - time.time()) // 86400)
    warning = " Check that it is renewed automatically." if days < EXPIRES_SOON_DAYS else ""
    return Finding.ok(
        CheckId.CERTIFICATE,
        f"The certificate is for {host}, trusted by this machine, and valid for {days} more days.{warning}",
    )


def _certificate_of(host: str, address: Address, context: ssl.SSLContext) -> dict[str, Any]:
    with (
        socket.create_connection(address[:2], timeout=CERTIFICATE_TIMEOUT_SECONDS) as client,
        context.wrap_socket(client, server_hostname=host) as secured,
    ):
        certificate: Any = secured.getpeercert()
    return dict(certificate)


_RENEW: Final = (
    "Renew the certificate, if possible automatically (ACME, cert-manager), and make sure that the proxy loads it."
)
_PUBLIC: Final = "Meta accepts only certificates of public authorities: get one, from Let's Encrypt (ACME) for example."
_CHAIN: Final = (
    f"Serve the full chain: the certificate first, then the intermediate certificates (fullchain.pem). {_PUBLIC}"
)
_UNKNOWN_ISSUER: Final = (
    "The certificate's issuer is unknown: either the intermediate certificates are not sent, or its authority is not "
    "trusted."
)
_WRONG_NAME: Final = 62
# By OpenSSL's numbers, X509_V_ERR_...
_OF_VERIFICATION: Final = {
    9: ("The certificate is not valid yet.", _RENEW),
    10: ("The certificate has expired.", _RENEW),
    18: ("The certificate is self-signed, which Meta does not accept.", _PUBLIC),
    19: ("The certificate's root authority is not trusted by this machine.", _PUBLIC),
    20: (_UNKNOWN_ISSUER, _CHAIN),
    21: (_UNKNOWN_ISSUER, _CHAIN),
}


def _of_verification(ex: ssl.SSLCertVerificationError, host: str, address: Address) -> tuple[str, str]:
    if ex.verify_code == _WRONG_NAME:
        return (
            f"The certificate is for {_names(host, address)}, not for {host}.",
            "Get a certificate for the name in the callback URL.",
        )
    other = f"The certificate was rejected: {ex.verify_message}."
    return _OF_VERIFICATION.get(ex.verify_code, (other, _PUBLIC))


def _names(host: str, address: Address) -> str:
    context = ssl.create_default_context()
    context.check_hostname = False
    try:
        certificate = _certificate_of(host, address, context)
    except OSError:
        return "another name"
    names = [value for kind, value in certificate.get("subjectAltName", ()) if kind in ("DNS", "IP Address")]
    return ", ".join(names[:MAX_LISTED_NAMES]) or "another name"
