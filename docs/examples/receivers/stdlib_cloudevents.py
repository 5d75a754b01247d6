import sys
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from standardwebhooks import Webhook, WebhookVerificationError

webhook = Webhook(open(sys.argv[2]).readline().strip())


class Receiver(BaseHTTPRequestHandler):
    log_request = lambda *_: None  # the line of each event is enough

    def do_POST(self):
        body = self.rfile.read(int(self.headers["Content-Length"]))  # the raw body
        try:
            webhook.verify(body, dict(self.headers))
        except WebhookVerificationError:
            return self.send_error(401)
        print(f"got {self.headers['ce-type']} {self.headers['ce-id']}\n", end="", flush=True)  # `body` has the update
        self.send_response(204)
        self.end_headers()


ThreadingHTTPServer(("127.0.0.1", int(sys.argv[1])), Receiver).serve_forever()
