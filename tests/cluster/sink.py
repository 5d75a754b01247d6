"""Runs in a pod: receives deliveries and prints each request as JSON; the path `/broken` is answered 500."""

import json
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


class Sink(BaseHTTPRequestHandler):
    """Prints the request and answers 200."""

    protocol_version = "HTTP/1.1"

    def do_POST(self) -> None:
        """Print the request, then answer it."""
        body = self.rfile.read(int(self.headers["Content-Length"]))
        request = {"path": self.path, "headers": dict(self.headers.items()), "body": body.decode()}
        print(json.dumps(request) + "\n", end="", flush=True)
        self.send_response(500 if self.path == "/broken" else 200)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *_arguments: object) -> None:
        """Log nothing else."""


ThreadingHTTPServer(("", 8080), Sink).serve_forever()
