"""The baseline for the service: a Falcon resource that verifies the signature and answers, and nothing else."""

import hmac
import os

import falcon


class Bare:
    """Verifies the signature and answers."""

    def __init__(self, secret: bytes) -> None:
        self._secret = secret

    def on_post(self, req: falcon.Request, resp: falcon.Response) -> None:
        """Answer 200 if the body has a valid signature."""
        body = req.bounded_stream.read()
        expected = "sha256=" + hmac.digest(self._secret, body, "sha256").hex()
        is_valid = hmac.compare_digest(expected, req.get_header("X-Hub-Signature-256") or "")
        resp.status = falcon.HTTP_200 if is_valid else falcon.HTTP_401


def app() -> falcon.App:
    """Return the application."""
    application = falcon.App()
    application.add_route("/webhooks", Bare(os.environ["BENCH_SECRET"].encode()))
    return application
