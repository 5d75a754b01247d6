"""Runs in a pod: takes what the relay delivers, and prints each request as JSON; the path `/broken` is answered 500."""

import json
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


class Taker(BaseHTTPRequestHandler):
    """Answers 200 and tells."""

    protocol_version = "HTTP/1.1"

    def do_POST(self) -> None:
        """Tell what came."""
        body = self.rfile.read(int(self.headers["Content-Length"]))
        told = {"path": self.path, "headers": dict(self.headers.items()), "body": body.decode()}
        print(json.dumps(told) + "\n", end="", flush=True)
        self.send_response(500 if self.path == "/broken" else 200)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *_arguments: object) -> None:
        """Say nothing more."""


ThreadingHTTPServer(("", 8080), Taker).serve_forever()
