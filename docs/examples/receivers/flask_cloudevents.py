import sys
from flask import Flask, abort, request
from standardwebhooks import Webhook, WebhookVerificationError

app = Flask(__name__)
webhook = Webhook(open(sys.argv[2]).readline().strip())


@app.post("/webhook")
def receive():
    body = request.get_data()  # the raw body
    try:
        webhook.verify(body, dict(request.headers))
    except WebhookVerificationError:
        abort(401)
    print(f"got {request.headers['ce-type']} {request.headers['ce-id']}\n", end="", flush=True)  # `body` has the update
    return "", 204


app.run("127.0.0.1", int(sys.argv[1]))
