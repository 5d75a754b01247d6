"""The public application: its routes, and the response to each error, with a fake webhook."""

import falcon
import pytest
from falcon import testing

from service.errors import HandshakeRefused, InboxUnavailable, WebhookError
from service.outcomes import HandshakeOutcome, StorageFailure
from service.receiver.app import create_app
from service.receiver.responses import ANSWERS, FAILED, RETRY_AFTER
from service.telemetry import logs
from tests.support.instruments import receiver_instruments


class Raising:
    """A fake webhook that raises `error` if it is set; otherwise its response is empty."""

    def __init__(self) -> None:
        self.error: Exception | None = None

    def on_get(self, _req: falcon.Request, _resp: falcon.Response) -> None:
        if self.error:
            raise self.error

    on_post = on_get


@pytest.fixture
def webhook() -> Raising:
    return Raising()


@pytest.fixture
def client(webhook: Raising) -> testing.TestClient:
    checks = {"inbox": lambda: "full" if webhook.error else None}
    app = create_app(
        webhook,  # type: ignore[arg-type]  a fake
        path="/webhooks",
        health_path="/healthz",
        checks=checks,
        instruments=receiver_instruments(),
        rate_limited_log=logs.RateLimitedLog(logs.get("server")),
    )
    return testing.TestClient(app)


def error_of(kind: type[WebhookError]) -> WebhookError:
    if issubclass(kind, HandshakeRefused):
        return kind(HandshakeOutcome.WRONG_TOKEN)
    if issubclass(kind, InboxUnavailable):
        return kind(StorageFailure.FULL, "the volume is full")
    return kind()


@pytest.mark.parametrize("kind", ANSWERS, ids=lambda kind: kind.__name__)
def test_each_error_has_its_response(client: testing.TestClient, webhook: Raising, kind: type[WebhookError]) -> None:
    """Status and text are those of the table; only responses to retryable errors have Retry-After."""
    webhook.error = error_of(kind)
    result = client.simulate_post("/webhooks")
    answer = ANSWERS[kind]
    assert (result.status, result.text) == (answer.status, answer.text)
    assert result.headers.get("Retry-After") == (RETRY_AFTER if answer.again else None)
    assert "full" not in result.text


def test_an_unexpected_exception_is_answered_500(client: testing.TestClient, webhook: Raising) -> None:
    """The response does not quote the exception, and asks for a retry."""
    webhook.error = ZeroDivisionError("secret")
    result = client.simulate_post("/webhooks")
    assert (result.status, result.text) == (FAILED.status, FAILED.text)
    assert result.headers["Retry-After"] == RETRY_AFTER


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/webhooks", 200),
        ("POST", "/webhooks", 200),
        ("GET", "/webhooks/", 404),
        ("GET", "/", 404),
        ("POST", "/elsewhere", 404),
        ("DELETE", "/webhooks", 405),
        ("OPTIONS", "/webhooks", 405),
        ("HEAD", "/webhooks", 405),
        ("GET", "/healthz", 200),
        ("POST", "/healthz", 405),
    ],
)
def test_only_its_own_paths_and_methods(client: testing.TestClient, method: str, path: str, status: int) -> None:
    """Other paths are answered 404, other methods 405 with `Allow`."""
    result = client.simulate_request(method, path)
    assert result.status_code == status
    if status == 405:
        assert set(result.headers["Allow"].split(", ")) <= {"GET", "HEAD", "POST"}
    if method != "HEAD" and status == 404:
        assert result.text == "not found\n"


def test_the_health_path(client: testing.TestClient, webhook: Raising) -> None:
    """It is answered 503 without a body if a check fails."""
    webhook.error = ValueError()
    result = client.simulate_get("/healthz")
    assert (result.status_code, result.text) == (503, "")
