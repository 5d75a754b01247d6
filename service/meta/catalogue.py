"""A catalogue of every kind of notification, with new ids at every run.

`samples.json` holds one change for each kind, made by us from the shapes in Meta's documentation ("Webhooks >
Reference" of the WhatsApp Business Platform); `$words` in it are filled in here. No name, number or text is real.
"""

import base64
import json
import secrets
import time
from importlib import resources
from string import Template
from typing import Any, Final

ACCOUNT: Final = "102290129340398"
_ACCOUNTS: Final = "1022901"  # what every account's id of the catalogue begins with
PHONE_NUMBER_ID: Final = "106540352242922"
BUSINESS: Final = "15550783881"


def is_made(source: str) -> bool:
    """Say whether an event with this source is of this catalogue, and so of nobody's."""
    return source.startswith(f"/{_ACCOUNTS}")


def kinds() -> tuple[str, ...]:
    """Name every kind that there is a sample of."""
    return tuple(_samples())


def notification(kind: str, *, now: float | None = None) -> bytes:
    """Write a notification of one update (of two, for a chunk of history) of this *kind*, as Meta does.

    *now* is in seconds since the epoch; None is the present.
    """
    return body([change(kind, now)])


def test_notification() -> bytes:
    """Write what Meta's "Test" button sends: its entry's id is 0, so that its event is marked `test`."""
    return body([_test()])


def marked(*, odd: bool = False, size: int = 0) -> tuple[bytes, str]:
    """Write a test notification, and the id of a message in it, by which its event can be found.

    *odd*: with blanks, escapes and a line's end at the end, all of which a signature covers. *size*: of so many bytes,
    of which nearly none is kept: two small events, and blanks around them.
    """
    tests = [_test(), _test()] if size else [_test()]
    message = tests[0]["change"]["value"]["messages"][0]
    if odd:
        message["text"] = {"body": '\u00e4\u00f6\u00fc \U0001f642 a/b <c> @d \\ " %2F + <script>1</script> ../../x'}
    written = body(tests)
    if odd:
        written = written.replace(b":{", b": {  ", 1) + b"\n"
    return written[:1] + b" " * (size - len(written)) + written[1:], str(message["id"])


def _test() -> dict[str, Any]:
    return {**change("message text"), "entry": {"id": "0"}}


def batch(size: int) -> bytes:
    """Write a notification of *size* text messages in one change: Meta sends up to 1000."""
    made = [change("message text") for _ in range(size)]
    together = made[0]
    together["change"]["value"]["messages"] = [each["change"]["value"]["messages"][0] for each in made]
    together["change"]["value"]["contacts"] = [each["change"]["value"]["contacts"][0] for each in made]
    return body([together])


def change(kind: str, now: float | None = None) -> dict[str, Any]:
    """Make the change of a *kind*, and what its entry says besides."""
    at = int(time.time() if now is None else now)
    text = json.dumps(_samples()[kind])
    sample = json.loads(Template(text).substitute(_words(at)))
    value = sample["value"]
    if not sample.get("account") and not sample.get("bare"):
        metadata = {"display_phone_number": BUSINESS, "phone_number_id": PHONE_NUMBER_ID}
        person = _person_in(value)
        contacts = sample.get("contacts", [{"profile": {"name": "Ada"}, "wa_id": person, "user_id": f"US.9{person}"}])
        value = {"messaging_product": "whatsapp", "metadata": metadata} | ({"contacts": contacts} if contacts else {})
        value |= sample["value"]
    # Many an update of the account holds no id at all: two of one second are two only by their accounts.
    entry = {"id": _account(), "time": at} if sample.get("account") else {"id": ACCOUNT}
    return {"entry": entry, "change": {"value": value, "field": sample["field"]}}


def body(changes: list[dict[str, Any]]) -> bytes:
    """Write changes as one notification, non-ASCII text and slashes escaped as Meta does."""
    entries = [{**each["entry"], "changes": [each["change"]]} for each in changes]
    text = json.dumps({"object": "whatsapp_business_account", "entry": entries}, separators=(",", ":"))
    return text.replace("/", "\\/").encode("ascii")


def _samples() -> dict[str, Any]:
    text = resources.files("service.meta").joinpath("samples.json").read_text(encoding="utf-8")
    samples: dict[str, Any] = json.loads(text)
    return samples


def _words(now: int) -> dict[str, str]:
    person = _number()
    return {
        "person": person,
        "person2": _number(),
        "user": f"US.{secrets.randbelow(10**17):017}",
        "business": BUSINESS,
        "account": ACCOUNT,
        "phone_number_id": PHONE_NUMBER_ID,
        "wamid": _message_id(),
        "wamid2": _message_id(),
        "wacid": f"wacid.{secrets.token_hex(16).upper()}",
        "group": secrets.token_hex(10),
        "click": secrets.token_hex(8),
        "sha": base64.b64encode(secrets.token_bytes(32)).decode(),
        "number": str(secrets.randbelow(10**15)),
        "word": secrets.token_hex(8),
        "now": str(now),
        "earlier": str(now - 86400),
        "later": str(now + 86400),
    }


def _number() -> str:
    """Make a number that nobody has: 555 is no exchange. Some updates are two in one second only by it."""
    return f"1{secrets.choice(range(200, 1000))}555{secrets.randbelow(10000):04}"


def _account() -> str:
    return f"{_ACCOUNTS}{secrets.randbelow(10**8):08}"


def _message_id() -> str:
    return f"wamid.{base64.b64encode(secrets.token_bytes(36)).decode()}"


def _person_in(value: dict[str, Any]) -> str:
    items = next((held for held in value.values() if isinstance(held, list)), [])
    return next((item[name] for item in items for name in ("from", "to", "recipient_id", "wa_id") if name in item), "")
