import hmac, sys
from flask import Flask, abort, request

app = Flask(__name__)
secrets = [line.strip().encode() for line in open(sys.argv[2]) if line.strip()]  # two during a rotation


@app.post("/webhook")
def receive():
    actual = request.headers.get("X-Hub-Signature-256", "").encode()
    digests = [hmac.digest(secret, request.get_data(), "sha256").hex() for secret in secrets]  # of the raw body
    if not any(hmac.compare_digest(actual, f"sha256={digest}".encode()) for digest in digests):
        abort(401)
    change = request.get_json()["entry"][0]["changes"][0]  # exactly one update
    update = (change["value"].get("messages") or change["value"].get("statuses") or [change["value"]])[0]
    print(f"got {change['field']} {str(update)[:120]}\n", end="", flush=True)  # one write: threads don't mix lines
    return "", 200


app.run("127.0.0.1", int(sys.argv[1]))
