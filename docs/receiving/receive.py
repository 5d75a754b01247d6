import sys
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from standardwebhooks import Webhook


class Receiver(BaseHTTPRequestHandler):
    def do_POST(self):
        body = self.rfile.read(int(self.headers["Content-Length"]))
        Webhook(open(sys.argv[2]).readline().strip()).verify(body, dict(self.headers))  # raises: tried again later
        print(f"got {self.headers['ce-type']} {self.headers['ce-id']} {body.decode()}", flush=True)
        self.send_response(204)
        self.end_headers()


ThreadingHTTPServer(("127.0.0.1", int(sys.argv[1])), Receiver).serve_forever()
