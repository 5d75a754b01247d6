"""Words for the Graph API's errors, where a code or a part of Meta's message tells enough."""

from typing import Final, NamedTuple

from service.meta.graph import handshake_errors

YOURS: Final = "yours"
METAS_SIDE: Final = "Meta's"
CALLBACK: Final = "the callback URL's"
SUBCODES: Final = {
    458: "the person whose access token it is has removed the app",
    459: "Meta asks the person whose access token it is to log in and confirm something",
    460: "the password of the person whose access token it is has changed",
    463: "the access token has expired",
    464: "the person whose access token it is has not confirmed their account",
    467: "the access token is not valid any more",
}
MAKE_ANOTHER: Final = (
    "Make a new one: business.facebook.com > Settings > System users > Generate token, with the permissions "
    "whatsapp_business_management and whatsapp_business_messaging, and put it into the file access-token."
)
COPY_AGAIN: Final = (
    "Copy the app secret again, of this very app: App dashboard > App settings > Basic > App secret > Show. "
    "It is line 1 of the file app-secret that counts here, or WEBHOOK_APP_SECRET."
)


class Case(NamedTuple):
    """What went wrong, what to do, and whose side it is on; *part*, in lower case, is what tells it in a message."""

    what: str
    remedy: str
    side: str = YOURS
    part: str = ""


OF_TOKEN: Final = (
    Case("the app secret is not this app's", COPY_AGAIN, part="signature"),
    Case("the app secret is not this app's", COPY_AGAIN, part="client secret"),
    Case(
        "there is no app with this id",
        "Look at the id: App dashboard > App settings.",
        part="cannot get application info",
    ),
    Case("the app was deleted", "Name another app in WEBHOOK_APP_ID.", part="application has been deleted"),
    Case("this is no access token", f"Something is missing of it, or too much. {MAKE_ANOTHER}", part="malformed"),
    Case("this is no access token", f"Something is missing of it, or too much. {MAKE_ANOTHER}", part="cannot parse"),
)
OF_PARAMETER: Final = (
    Case(
        "the app secret is not that of the access token's app",
        f"{COPY_AGAIN} The access token must be one that was made for this app.",
        part="appsecret_proof",
    ),
    Case(
        "Meta overrides the callback URL only of an account that the app is subscribed to",
        "Subscribe the account first: name it in WEBHOOK_ACCOUNTS or with --account.",
        part="before override",
    ),
    Case(
        "this id is not of what it was given as",
        "An account's id and a number's stand side by side: App dashboard > WhatsApp > API Setup.",
        part="nonexisting field",
    ),
    Case("Meta wants the app's own token for this", COPY_AGAIN, part="app access token"),
    Case(
        "there is nothing with this id, or the access token may not see it",
        (
            "Look at the id. In Meta's business settings, give the system user full control of the account: "
            "Accounts > WhatsApp accounts > Add people."
        ),
        part="does not exist",
    ),
    Case(
        "Meta could not reach the callback URL",
        f"{handshake_errors.ASK} says why.",
        CALLBACK,
        part="not reachable",
    ),
    Case(
        "Meta does not take this as a callback URL",
        "It wants https, a public name and no fragment.",
        part="callback uri",
    ),
    Case(
        "Meta does not know one of the fields, or does not offer it to this app",
        "Leave it out with --fields: App dashboard > WhatsApp > Configuration lists those that this app can have.",
        part="fields[",
    ),
)
PERMISSION: Final = (
    "Its permissions want whatsapp_business_management, and its system user full control of this account: "
    "business.facebook.com > Settings > System users > Assign assets."
)


CODES: Final = "Meta's documentation has its codes under Graph API > Handling errors."
TRY_AGAIN: Final = Case(
    "Meta can't do it just now", "Try again in some minutes; metastatus.com says whether it is known.", METAS_SIDE
)
OTHERS: Final = {
    101: Case("there is no app with this id", "Look at WEBHOOK_APP_ID: App dashboard > App settings > Basic."),
    104: Case("no access token came with the request", MAKE_ANOTHER),
    368: Case(
        "Meta has blocked this for a breach of its policies",
        "The business's Account Quality page says which.",
        METAS_SIDE,
    ),
    2500: Case(
        "the Graph API does not know this path", "Look at WEBHOOK_GRAPH_VERSION, and at the ids: each is digits alone."
    ),
    2635: Case(
        "this version of the Graph API is over", "Set WEBHOOK_GRAPH_VERSION to one that Meta's changelog lists."
    ),
}
