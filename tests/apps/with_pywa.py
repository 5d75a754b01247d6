"""A WhatsApp application as in pywa's documentation; usage: with_pywa.py PORT APP_SECRET."""

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
def message(_client: WhatsApp, received: types.Message) -> None:
    """Print a message."""
    print("message", received.id, received.from_user.wa_id, received.text, flush=True)


@wa.on_message_status
def status(_client: WhatsApp, received: types.MessageStatus) -> None:
    """Print a status."""
    print("status", received.id, received.status.value, flush=True)


app.run("127.0.0.1", int(sys.argv[1]))
