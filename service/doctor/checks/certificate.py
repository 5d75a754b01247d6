"""The certificate of a public URL, as somebody sees it who trusts what this machine does."""

import socket
import ssl
import time
from collections.abc import Sequence
from typing import Any, Final

from service.doctor.caller import wants_certificate
from service.doctor.finding import Finding, FindingState
from service.outcomes import CheckId

Address = tuple[Any, ...]  # as the socket module has it: host, port, and more of IPv6
CERTIFICATE_TIMEOUT_SECONDS: Final = 5.0
SOON_EXPIRED_DAYS: Final = 14  # days
MAX_LISTED_NAMES: Final = 10  # that are said


def look(host: str, addresses: Sequence[Address]) -> Finding:
    """Do the TLS handshake at each address, with the authorities that this machine trusts; say what is worst."""
    found = [(address, _look(host, address)) for address in addresses]
    for address, finding in found:
        if finding.state is not FindingState.OK:
            at = f"At {address[0]}: " if len(addresses) > 1 else ""
            return finding._replace(detail=at + finding.detail)
    return found[0][1]


def _look(host: str, address: Address) -> Finding:
    try:
        told = _greeted(host, address, ssl.create_default_context())
    except ssl.SSLCertVerificationError as ex:
        return Finding.wrong(CheckId.CERTIFICATE, *_of_verification(ex, host, address))
    except (ssl.SSLError, OSError) as ex:
        if wants_certificate(ex):
            return Finding.unknown(
                CheckId.CERTIFICATE,
                "The other side broke the TLS handshake off. It may want a client certificate, which Meta has and this "
                "machine has not; or it does not know this name.",
                "docs/kubernetes.md tells of Meta's certificate. Whether Meta gets through, `so far` in the pod's "
                "doctor shows.",
            )
        what = ex.reason or str(ex) if isinstance(ex, ssl.SSLError) else str(ex)
        return Finding.wrong(
            CheckId.CERTIFICATE,
            f"The TLS handshake failed: {what}.",
            "Does this port speak TLS at all, with a certificate for this name? Look at the proxy's log.",
        )
    days = int((ssl.cert_time_to_seconds(told["notAfter"]) - time.time()) // 86400)
    left = f"valid for {days} more days" + ("; is it renewed by itself?" if days < SOON_EXPIRED_DAYS else "")
    return Finding.ok(CheckId.CERTIFICATE, f"Trusted here, for {host}, {left}.")


def _greeted(host: str, address: Address, context: ssl.SSLContext) -> dict[str, Any]:
    with (
        socket.create_connection(address[:2], timeout=CERTIFICATE_TIMEOUT_SECONDS) as client,
        context.wrap_socket(client, server_hostname=host) as secured,
    ):
        found: Any = secured.getpeercert()
    return dict(found)


_RENEW: Final = "Have it renewed, best by itself (ACME, cert-manager), and see that the proxy takes the new one."
_PUBLIC: Final = "Meta takes certificates of public authorities only: get one by ACME (Let's Encrypt), say."
_CHAIN: Final = f"Serve the full chain, the certificate first, then the intermediate ones (fullchain.pem). {_PUBLIC}"
_NOT_FOUND: Final = (
    "The issuer of the certificate is not found: the intermediate ones are not sent, or nobody trusts it."
)
_WRONG_NAME: Final = 62
# By OpenSSL's numbers, X509_V_ERR_...
_OF_VERIFICATION: Final = {
    9: ("The certificate is not valid yet.", _RENEW),
    10: ("The certificate has expired.", _RENEW),
    18: ("The certificate is self-signed, which Meta does not take.", _PUBLIC),
    19: ("The authority of the certificate is not one that is trusted here.", _PUBLIC),
    20: (_NOT_FOUND, _CHAIN),
    21: (_NOT_FOUND, _CHAIN),
}


def _of_verification(ex: ssl.SSLCertVerificationError, host: str, address: Address) -> tuple[str, str]:
    if ex.verify_code == _WRONG_NAME:
        return (
            f"The certificate is for {_names(host, address)}, and not for {host}.",
            "Get one for the name that Meta calls.",
        )
    told = f"The certificate is not taken: {ex.verify_message}."
    return _OF_VERIFICATION.get(ex.verify_code, (told, _PUBLIC))


def _names(host: str, address: Address) -> str:
    context = ssl.create_default_context()
    context.check_hostname = False
    try:
        told = _greeted(host, address, context)
    except OSError:
        return "another name"
    names = [value for kind, value in told.get("subjectAltName", ()) if kind in ("DNS", "IP Address")]
    return ", ".join(names[:MAX_LISTED_NAMES]) or "another name"
