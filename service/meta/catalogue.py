"""A catalogue of sample notifications of every kind, with new ids each time.

`samples.json` has one change for each kind, written from the schemas in Meta's documentation ("Webhooks > Reference" of
the WhatsApp Business Platform); its `$placeholders` are filled in here. No name, number or text is real.
"""

import base64
import json
import secrets
import time
from importlib import resources
from string import Template
from typing import Any, Final

ACCOUNT: Final = "102290129340398"
_ACCOUNTS: Final = "1022901"  # the first digits of every account id in the catalogue
PHONE_NUMBER_ID: Final = "106540352242922"
BUSINESS: Final = "15550783881"


def is_simulated(source: str) -> bool:
    """Return whether an event with this source is from the catalogue, and so not real."""
    return source.startswith(f"/{_ACCOUNTS}")


def kinds() -> tuple[str, ...]:
    """Return the name of every sample."""
    return tuple(_samples())


def notification(kind: str, *, now: float | None = None) -> bytes:
    """Return a notification with one update of this *kind* (two for a history chunk), serialized as Meta does.

    *now* is in seconds since the epoch; None is the current time.
    """
    return body([change(kind, now)])


def written(kind: str, *, person: str | None, text: str | None) -> bytes:
    """Return a notification with one update of this *kind*, from this *person* and with this *text*.

    *person* is a phone number without `+`; None leaves the sample's. Raises ValueError if the kind has no sender or no
    text.
    """
    made = change(kind)
    value = made["change"]["value"]
    message = (value.get("messages") or [{}])[0]
    if person is not None:
        if "from" not in message:
            raise ValueError("has no sender")
        message["from"] = person
        value["contacts"] = [
            {**contact, "wa_id": person, "user_id": f"US.9{person}"} for contact in value.get("contacts", ())
        ]
    if text is not None:
        if "body" not in message.get("text", ()):
            raise ValueError("has no text")
        message["text"]["body"] = text
    return body([made])


def test_notification() -> bytes:
    """Return what Meta's "Test" button sends: the entry's id is 0, so that its event is marked `test`."""
    return body([_test()])


def findable_test(*, odd: bool = False, size: int = 0) -> tuple[bytes, str]:
    """Return a test notification, and the id of a message in it, by which its event can be found.

    *odd*: with whitespace, escapes and a line end, which proxies may change. *size*: padded with spaces to so many
    bytes, of which only two small events are stored.
    """
    tests = [_test(), _test()] if size else [_test()]
    message = tests[0]["change"]["value"]["messages"][0]
    if odd:
        message["text"] = {"body": '\u00e4\u00f6\u00fc \U0001f642 a/b <c> @d \\ " %2F + <script>1</script> ../../x'}
    content = body(tests)
    if odd:
        content = content.replace(b":{", b": {  ", 1) + b"\n"
    return content[:1] + b" " * (size - len(content)) + content[1:], str(message["id"])


def _test() -> dict[str, Any]:
    return {**change("message text"), "entry": {"id": "0"}}


def batch(size: int) -> bytes:
    """Return a notification with *size* text messages in one change; Meta sends up to 1000."""
    changes = [change("message text") for _ in range(size)]
    merged = changes[0]
    merged["change"]["value"]["messages"] = [each["change"]["value"]["messages"][0] for each in changes]
    merged["change"]["value"]["contacts"] = [each["change"]["value"]["contacts"][0] for each in changes]
    return body([merged])


def change(kind: str, now: float | None = None) -> dict[str, Any]:
    """Return the change of a *kind*, and the other members of its entry."""
    at = int(time.time() if now is None else now)
    text = json.dumps(_samples()[kind])
    sample = json.loads(Template(text).substitute(_placeholders(at)))
    value = sample["value"]
    if not sample.get("account") and not sample.get("bare"):
        metadata = {"display_phone_number": BUSINESS, "phone_number_id": PHONE_NUMBER_ID}
        person = _person_in(value)
        contacts = sample.get("contacts", [{"profile": {"name": "Ada"}, "wa_id": person, "user_id": f"US.9{person}"}])
        value = {"messaging_product": "whatsapp", "metadata": metadata} | ({"contacts": contacts} if contacts else {})
        value |= sample["value"]
    # Many updates of an account have no id: two in the same second differ only by their account.
    entry = {"id": _account(), "time": at} if sample.get("account") else {"id": ACCOUNT}
    return {"entry": entry, "change": {"value": value, "field": sample["field"]}}


def body(changes: list[dict[str, Any]]) -> bytes:
    """Serialize changes as one notification, with non-ASCII text and slashes escaped as Meta does."""
    entries = [{**each["entry"], "changes": [each["change"]]} for each in changes]
    text = json.dumps({"object": "whatsapp_business_account", "entry": entries}, separators=(",", ":"))
    return text.replace("/", "\\/").encode("ascii")


def _samples() -> dict[str, Any]:
    text = resources.files("service.meta").joinpath("samples.json").read_text(encoding="utf-8")
    samples: dict[str, Any] = json.loads(text)
    return samples


def _placeholders(now: int) -> dict[str, str]:
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
    """Return a phone number that does not exist (exchange 555); some updates in the same second differ only by it."""
    return f"1{secrets.choice(range(200, 1000))}555{secrets.randbelow(10000):04}"


def _account() -> str:
    return f"{_ACCOUNTS}{secrets.randbelow(10**8):08}"


def _message_id() -> str:
    return f"wamid.{base64.b64encode(secrets.token_bytes(36)).decode()}"


def _person_in(value: dict[str, Any]) -> str:
    items = next((each for each in value.values() if isinstance(each, list)), [])
    return next((item[name] for item in items for name in ("from", "to", "recipient_id", "wa_id") if name in item), "")
