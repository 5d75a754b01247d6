"""Explanations of the Graph API's errors, by code or by a part of Meta's message."""

from typing import Final, NamedTuple

from service.meta.graph import handshake_errors

YOURS: Final = "yours"
METAS_SIDE: Final = "Meta's"
CALLBACK: Final = "the callback URL's"
SUBCODES: Final = {
    458: "the user of the access token has removed the app",
    459: "Meta requires the user of the access token to log in and confirm something",
    460: "the user of the access token has changed their password",
    463: "the access token has expired",
    464: "the user of the access token has not confirmed their account",
    467: "the access token is no longer valid",
}
GENERATE_NEW: Final = (
    "Generate a new one: business.facebook.com > Settings > System users > Generate token, with the permissions "
    "whatsapp_business_management and whatsapp_business_messaging. Put it into the file access-token."
)
COPY_AGAIN: Final = (
    "Copy the app secret again, from this app: App dashboard > App settings > Basic > App secret > Show. Put it into "
    "the file app-secret, or into WEBHOOK_APP_SECRET."
)


class ErrorCase(NamedTuple):
    """The cause, the remedy, and whose side it is on; *part*, in lower case, recognizes it in Meta's message."""

    what: str
    remedy: str
    side: str = YOURS
    part: str = ""


_NO_TOKEN: Final = "this is not an access token"  # noqa: S105  a message
_INCOMPLETE: Final = f"It is incomplete, or has extra characters. {GENERATE_NEW}"
OF_TOKEN: Final = (
    ErrorCase("the app secret is not this app's", COPY_AGAIN, part="signature"),
    ErrorCase("the app secret is not this app's", COPY_AGAIN, part="client secret"),
    ErrorCase(
        "there is no app with this id",
        "Check the id: App dashboard > App settings.",
        part="cannot get application info",
    ),
    ErrorCase("the app was deleted", "Name another app in WEBHOOK_APP_ID.", part="application has been deleted"),
    ErrorCase(_NO_TOKEN, _INCOMPLETE, part="malformed"),
    ErrorCase(_NO_TOKEN, _INCOMPLETE, part="cannot parse"),
)
OF_PARAMETER: Final = (
    ErrorCase(
        "the app secret is not that of the access token's app",
        f"{COPY_AGAIN} The access token must have been generated for this app.",
        part="appsecret_proof",
    ),
    ErrorCase(
        "Meta accepts an override only for an account that the app is subscribed to",
        "Subscribe the account first: name it in WEBHOOK_ACCOUNTS or with --account.",
        part="before override",
    ),
    ErrorCase(
        "this is the id of another kind of object",
        "Account ids and phone number ids are easily confused: App dashboard > WhatsApp > API Setup shows both.",
        part="nonexisting field",
    ),
    ErrorCase("Meta requires the app's own token for this", COPY_AGAIN, part="app access token"),
    ErrorCase(
        "there is no object with this id, or the access token may not see it",
        (
            "Check the id. In Meta's business settings, give the system user full control of the account: "
            "Accounts > WhatsApp accounts > Add people."
        ),
        part="does not exist",
    ),
    ErrorCase(
        "Meta could not reach the callback URL",
        f"{handshake_errors.ASK} reports why.",
        CALLBACK,
        part="not reachable",
    ),
    ErrorCase(
        "Meta does not accept this callback URL",
        "It must be https, with a public host name and without a fragment.",
        part="callback uri",
    ),
    ErrorCase(
        "Meta does not know one of the fields, or does not offer it to this app",
        "Leave it out of --fields: App dashboard > WhatsApp > Configuration lists the fields that this app can have.",
        part="fields[",
    ),
)
PERMISSION: Final = (
    "It needs the permission whatsapp_business_management, and its system user full control of this account: "
    "business.facebook.com > Settings > System users > Assign assets."
)


CODES: Final = "For its codes, see Meta's documentation: Graph API > Handling errors."
TRY_AGAIN: Final = ErrorCase(
    "Meta can't do this at the moment",
    "Try again in a few minutes; metastatus.com reports whether it is a known outage.",
    METAS_SIDE,
)
OTHERS: Final = {
    101: ErrorCase("there is no app with this id", "Check WEBHOOK_APP_ID: App dashboard > App settings > Basic."),
    104: ErrorCase("the request had no access token", GENERATE_NEW),
    368: ErrorCase(
        "Meta has blocked this for a breach of its policies",
        "See the business's Account Quality page.",
        METAS_SIDE,
    ),
    2500: ErrorCase(
        "the Graph API does not know this path",
        "Check WEBHOOK_GRAPH_VERSION, and the ids: each has digits only.",
    ),
    2635: ErrorCase(
        "this version of the Graph API is no longer available",
        "Set WEBHOOK_GRAPH_VERSION to a version that Meta's changelog lists.",
    ),
}
