"""What the service is measured against: Falcon, a resource that checks the signature and answers, nothing more."""

import hmac
import os

import falcon


class Bare:
    """Checks and answers."""

    def __init__(self, secret: bytes) -> None:
        self._secret = secret

    def on_post(self, req: falcon.Request, resp: falcon.Response) -> None:
        """Answer 200 to a body with the right signature."""
        body = req.bounded_stream.read()
        right = "sha256=" + hmac.digest(self._secret, body, "sha256").hex()
        good = hmac.compare_digest(right, req.get_header("X-Hub-Signature-256") or "")
        resp.status = falcon.HTTP_200 if good else falcon.HTTP_401


def app() -> falcon.App:
    """Make the application."""
    made = falcon.App()
    made.add_route("/webhooks", Bare(os.environ["BENCH_SECRET"].encode()))
    return made
