import hmac, json, sys
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

secrets = [line.strip().encode() for line in open(sys.argv[2]) if line.strip()]  # two during a rotation


class Receiver(BaseHTTPRequestHandler):
    log_request = lambda *_: None  # the line of each event is enough

    def do_POST(self):
        body = self.rfile.read(int(self.headers["Content-Length"]))  # the raw body
        actual = self.headers.get("X-Hub-Signature-256", "").encode()
        digests = [hmac.digest(secret, body, "sha256").hex() for secret in secrets]
        if not any(hmac.compare_digest(actual, f"sha256={digest}".encode()) for digest in digests):
            return self.send_error(401)
        change = json.loads(body)["entry"][0]["changes"][0]  # exactly one update
        update = (change["value"].get("messages") or change["value"].get("statuses") or [change["value"]])[0]
        print(f"got {change['field']} {str(update)[:120]}\n", end="", flush=True)  # one write: threads don't mix lines
        self.send_response(200)
        self.end_headers()


ThreadingHTTPServer(("127.0.0.1", int(sys.argv[1])), Receiver).serve_forever()
