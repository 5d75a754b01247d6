import hmac, sys
from flask import Flask, abort, request

app = Flask(__name__)
secret = open(sys.argv[2]).readline().strip().encode()  # what Meta calls the app secret


@app.post("/webhook")
def receive():
    expected = "sha256=" + hmac.digest(secret, request.get_data(), "sha256").hex()  # of the raw body
    actual = request.headers.get("X-Hub-Signature-256", "")
    if not hmac.compare_digest(actual.encode(), expected.encode()):
        abort(401)
    change = request.get_json()["entry"][0]["changes"][0]  # exactly one update
    print(f"got {change['field']} {change['value']}", flush=True)
    return "", 200


app.run("127.0.0.1", int(sys.argv[1]))
