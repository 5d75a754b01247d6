"""A WhatsApp application as pywa's documentation has it; usage: with_pywa.py PORT APP_SECRET."""

import sys

from flask import Flask
from pywa import WhatsApp, types

app = Flask(__name__)
wa = WhatsApp(
    phone_id="106540352242922",
    token="a token",
    server=app,
    webhook_endpoint="/webhook",
    verify_token="a verify token",
    app_secret=sys.argv[2],
)


@wa.on_message
def message(_client: WhatsApp, found: types.Message) -> None:
    """Say what came."""
    print("message", found.id, found.from_user.wa_id, found.text, flush=True)


@wa.on_message_status
def status(_client: WhatsApp, found: types.MessageStatus) -> None:
    """Say what came."""
    print("status", found.id, found.status.value, flush=True)


app.run("127.0.0.1", int(sys.argv[1]))
