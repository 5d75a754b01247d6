"""The OpenAPI documents of both listeners, checked against the real server.

Schemathesis makes the requests: examples, boundaries of each schema, and generated ones, valid and invalid, the same at
every run. Its checks validate the answers. What it cannot send (an incomplete body, for instance) is sent by hand and
validated by the same checks.
"""

import copy
import json
import socket
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import jsonschema_rs  # this and requests come with schemathesis
import pytest
import requests
import schemathesis
import yaml
from schemathesis import checks

from service import errors, signature
from service.meta import catalogue
from service.receiver import responses
from tests.support.server import PATIENCE, Answer, Server, post, read_answer, until

DOCS = Path(__file__).parents[2] / "docs"
WITH_EVERY_ANSWER = {"date", "content-length", "content-type"}
METHODS = ("get", "post", "put", "delete", "options", "head", "patch", "trace")
WRONG_SIGNATURE = f"{signature.HEADER}: sha256={'0' * 64}\r\n"
CHUNKED = f"POST /webhooks HTTP/1.1\r\nHost: x\r\n{WRONG_SIGNATURE}Transfer-Encoding: chunked\r\n\r\n".encode()


def document_of(listener: str) -> dict[str, Any]:
    document: dict[str, Any] = yaml.safe_load((DOCS / f"openapi-{listener}.yaml").read_text())
    return document


PUBLIC, ADMIN = document_of("public"), document_of("admin")


def loaded(
    document: dict[str, Any], *, good: Sequence[str] = ("2xx",), bad: Sequence[str] = ("4xx",), down: Sequence[str] = ()
) -> Any:
    """Load *document* into schemathesis.

    A valid request must get one of *good*, an invalid one one of *bad*; of the 5xx only *down* is allowed.
    """
    expected = {
        "positive_data_acceptance": {"expected-statuses": list(good)},
        "negative_data_rejection": {"expected-statuses": list(bad)},
        "missing_required_header": {"expected-statuses": list(bad)},
        "not_a_server_error": {"expected-statuses": ["2xx", "4xx", *down]},
    }
    generation = {"deterministic": True, "max-examples": 30, "database": "none"}
    config = schemathesis.Config.from_dict({"seed": 1, "generation": generation, "checks": expected})
    return schemathesis.openapi.from_dict(document, config=config)


STRANGER = loaded(PUBLIC, good=["401", "404"], bad=["401", "404"])
TOKEN_KNOWN = loaded(PUBLIC, good=["200"], bad=["404"]).include(method="GET")
SECRET_KNOWN = loaded(PUBLIC, good=["200"], bad=["200"]).include(method="POST")
TOO_EARLY = loaded(PUBLIC, good=["404", "503"], bad=["404", "503"], down=["503"])
PROBES = loaded(ADMIN, good=["200"])
PROBES_TOO_EARLY = loaded(ADMIN, good=["200", "503"], down=["503"])


@schemathesis.deserializer("text/plain", "application/openmetrics-text")
def text_of(_context: schemathesis.DeserializationContext, response: schemathesis.Response) -> str:
    """Return the body of these types, which schemathesis itself does not parse."""
    return response.text


def no_other_header(
    _context: schemathesis.CheckContext, response: schemathesis.Response, case: schemathesis.Case
) -> None:
    """Check that the answer has no undocumented header."""
    operation = case.operation.schema.raw_schema["paths"][case.path].get(case.method.lower(), {"responses": {}})
    documented = operation["responses"].get(str(response.status_code))
    if documented:  # else other checks report it
        assert response.headers.keys() <= {name.lower() for name in documented.get("headers", ())} | WITH_EVERY_ANSWER


def judged_call(case: schemathesis.Case, port: int, **how: Any) -> schemathesis.Response:
    """Send a generated request, and validate the answer."""
    return case.call_and_validate(base_url=f"http://127.0.0.1:{port}", additional_checks=[no_other_header], **how)


def judge(document: dict[str, Any], method: str, path: str, answer: Answer) -> None:
    """Validate an answer to a request that was sent by hand."""
    response = schemathesis.Response(
        answer.status,
        {name: [value] for name, value in answer.headers.items()},
        answer.body,
        requests.Request(method, f"http://127.0.0.1{path}").prepare(),
        elapsed=0,
        verify=False,
    )
    case = loaded(document, down=["503"])[path][method].Case()
    case.validate_response(response, additional_checks=[no_other_header])


def signer(secret: str) -> Callable[[requests.PreparedRequest], requests.PreparedRequest]:
    """Return an `auth` of requests that signs the bytes of a request."""

    def sign(request: requests.PreparedRequest) -> requests.PreparedRequest:
        body = request.body or b""
        raw = body.encode() if isinstance(body, str) else body
        request.headers[signature.HEADER] = signature.header_for(raw, secret.encode())
        return request

    return sign


@pytest.fixture(scope="module")
def waiting_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server without credentials."""
    server = Server(tmp_path_factory.mktemp("waiting"))
    try:
        server.start()
        until(lambda: server.admin("/readyz").status == 503, "no answer")
        yield server
    finally:
        server.stop()


@pytest.fixture(scope="module")
def strict_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server with a read timeout of 1 s and a body limit of 1 KiB."""
    settings = {"WEBHOOK_READ_TIMEOUT": "1s", "WEBHOOK_MAX_BODY_BYTES": "1024"}
    with Server(tmp_path_factory.mktemp("strict"), **settings) as running:
        yield running


@pytest.mark.parametrize("document", [PUBLIC, ADMIN], ids=["public", "admin"])
def test_the_documents_are_valid(document: dict[str, Any]) -> None:
    """Each is OpenAPI 3.1, and each example matches its schema."""
    assert document["openapi"].startswith("3.1.")
    loaded(document).validate()
    shown = 0
    for part in parts_with_schema(document):
        examples = [each["value"] for each in part.get("examples", {}).values()]
        if "example" in part:
            examples.append(part["example"])
        for example in examples:
            jsonschema_rs.validate({**part["schema"], "components": document["components"]}, example)
            shown += 1
    assert shown


def parts_with_schema(part: Any) -> Iterator[dict[str, Any]]:
    """Yield parameters, headers and bodies."""
    if isinstance(part, dict):
        if "schema" in part:
            yield part
        part = list(part.values())
    if isinstance(part, list):
        for each in part:
            yield from parts_with_schema(each)


@pytest.mark.parametrize("error", responses.ANSWERS, ids=lambda error: error.__name__)
def test_every_rejection_is_documented(error: type[errors.WebhookError]) -> None:
    """With the status, body and Retry-After of the table in `receiver/responses.py`."""
    operation = "get" if error is errors.HandshakeRefused else "post"
    assert_documented(operation, responses.ANSWERS[error])


@pytest.mark.parametrize("operation", ["get", "post"])
def test_an_internal_error_is_documented(operation: str) -> None:
    """On both operations; it cannot be provoked from outside."""
    assert_documented(operation, responses.FAILED)


def assert_documented(operation: str, answer: responses.ErrorResponse) -> None:
    documented = PUBLIC["paths"]["/webhooks"][operation]["responses"][answer.status[:3]]
    assert documented["content"] == {"text/plain": {"schema": {"const": answer.text}}}
    assert ("Retry-After" in documented["headers"]) == answer.again
    assert PUBLIC["components"]["headers"]["Retry-After"]["schema"]["const"] == int(responses.RETRY_AFTER)


def test_only_answers_that_exist_are_documented() -> None:
    """200, the rejections and the internal error."""
    given: dict[str, set[str]] = {
        "get": {"200", responses.FAILED.status[:3]},
        "post": {"200", responses.FAILED.status[:3]},
    }
    for error, answer in responses.ANSWERS.items():
        given["get" if error is errors.HandshakeRefused else "post"].add(answer.status[:3])
    for operation, statuses in given.items():
        assert PUBLIC["paths"]["/webhooks"][operation]["responses"].keys() == statuses


def test_notifications_match_the_schema() -> None:
    """Every kind of the catalogue."""
    schema = {"$ref": "#/components/schemas/Notification", "components": PUBLIC["components"]}
    for kind in catalogue.kinds():
        jsonschema_rs.validate(schema, json.loads(catalogue.notification(kind)))


@pytest.mark.needs("corpus")
def test_real_payloads_match_the_schema(corpus: list[Path]) -> None:
    """Meta's own samples."""
    schema = {"$ref": "#/components/schemas/Notification", "components": PUBLIC["components"]}
    for file in corpus:
        jsonschema_rs.validate(schema, json.loads(file.read_bytes()))


AS_DOCUMENTED = {"connection": "keep-alive", "content-type": "text/plain", "retry-after": "5"}


@pytest.mark.parametrize(
    "answer",
    [
        Answer(418, AS_DOCUMENTED, b"unavailable, try again\n"),
        Answer(503, AS_DOCUMENTED, b"unavailable\n"),
        Answer(503, {**AS_DOCUMENTED, "content-type": "text/html"}, b"unavailable, try again\n"),
        Answer(503, {**AS_DOCUMENTED, "retry-after": "6"}, b"unavailable, try again\n"),
        Answer(503, {**AS_DOCUMENTED, "server": "a name"}, b"unavailable, try again\n"),
        Answer(503, {"connection": "close", "content-type": "text/plain"}, b"unavailable, try again\n"),
    ],
)
def test_a_single_difference_is_detected(answer: Answer) -> None:
    """An answer that differs from the document in one thing fails one check."""
    judge(PUBLIC, "POST", "/webhooks", Answer(503, AS_DOCUMENTED, b"unavailable, try again\n"))
    with pytest.raises(schemathesis.errors.FailureGroup) as found:
        judge(PUBLIC, "POST", "/webhooks", answer)
    assert len(found.value.exceptions) == 1


@STRANGER.parametrize()
def test_requests_without_credentials(case: schemathesis.Case, shared_server: Server) -> None:
    """Every request of somebody without token and secret is rejected as documented, without an error."""
    judged_call(case, shared_server.port)


@TOKEN_KNOWN.parametrize()
def test_a_handshake(case: schemathesis.Case, shared_server: Server) -> None:
    """With the token, a valid request gets its challenge back, and an invalid one is rejected."""
    case.query["hub.verify_token"] = shared_server.token
    response = judged_call(case, shared_server.port)
    if response.status_code == 200:
        assert response.text == case.query["hub.challenge"]


@SECRET_KNOWN.parametrize()
def test_a_signed_notification(case: schemathesis.Case, shared_server: Server) -> None:
    """With a correct signature every body is stored and answered 200, valid or not."""
    before = shared_server.metric("whatsapp_webhook_notifications_total", outcome="accepted")
    response = judged_call(case, shared_server.port, auth=signer(shared_server.secret))
    accepted = shared_server.metric("whatsapp_webhook_notifications_total", outcome="accepted") - before
    assert (response.status_code, accepted) == ((200, 1) if case.method == "POST" else (405, 0))


@TOO_EARLY.parametrize()
def test_without_credentials(case: schemathesis.Case, waiting_server: Server) -> None:
    """Nothing is verified and nothing is stored: 404 and 503, as documented."""
    response = judged_call(case, waiting_server.port, auth=signer("any"))
    assert response.status_code == {"GET": 404, "POST": 503}.get(case.method, 405)


@PROBES.parametrize()
def test_probes(case: schemathesis.Case, shared_server: Server) -> None:
    """A server that is ready answers its admin listener as documented."""
    judged_call(case, shared_server.admin_port)


@PROBES_TOO_EARLY.parametrize()
def test_probes_without_credentials(case: schemathesis.Case, waiting_server: Server) -> None:
    """Only /readyz reports that the server is not ready, as documented."""
    response = judged_call(case, waiting_server.admin_port)
    if case.method == "GET":
        assert response.status_code == (503 if case.path == "/readyz" else 200)


@pytest.mark.parametrize(
    ("accept", "media_type"),
    [
        ("", "text/plain"),
        ("*/*", "text/plain"),
        ("application/json", "text/plain"),
        ("text/plain; version=x", "text/plain"),
        ("text/plain;version=1.0.0;escaping=underscores;q=0.5", "text/plain"),
        ("application/openmetrics-text", "application/openmetrics-text"),
        ("application/openmetrics-text;version=1.0.0;q=0.9,text/plain;q=0.1", "application/openmetrics-text"),
    ],
)
def test_both_formats_of_the_metrics(shared_server: Server, accept: str, media_type: str) -> None:
    """The Accept header selects the format, as documented."""
    answer = shared_server.admin("/metrics", Accept=accept)
    assert answer.headers["content-type"].startswith(media_type)
    judge(ADMIN, "GET", "/metrics", answer)


@pytest.mark.parametrize(
    ("raw", "status"),
    [
        (post(b"{}", "wrong"), 401),
        (post(b"{}", "any", more=WRONG_SIGNATURE), 401),
        (post(b"{", "any", length=2), 408),
        (post(b"", "any", length=1025), 413),
        (post(b"{}", "any", more="Content-Encoding: gzip\r\n"), 415),
        (CHUNKED + b"no hex\r\n", 400),
        (CHUNKED + b"1\r\n{\r\n", 408),
    ],
)
def test_rejected_bodies(strict_server: Server, raw: bytes, status: int) -> None:
    """Late, broken, too large or encoded bodies are rejected as documented."""
    with strict_server.connect() as client:
        client.sendall(raw)
        answer = read_answer(client)
    assert answer.status == status
    judge(PUBLIC, "POST", "/webhooks", answer)


@pytest.mark.parametrize(
    ("listener", "document", "path"),
    [("port", PUBLIC, "/webhooks"), *(("admin_port", ADMIN, path) for path in ADMIN["paths"])],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_other_methods_and_paths(shared_server: Server, listener: str, document: dict[str, Any], path: str) -> None:
    """They are answered as the components document, which no operation references."""
    document = copy.deepcopy(document)
    there = document["paths"][path]
    components = document["components"]["responses"]
    other_methods = [method for method in METHODS if method not in there]
    there |= {method: {"responses": {"405": components["MethodNotAllowed"]}} for method in other_methods}
    document["paths"]["/nowhere"] = {method: {"responses": {"404": components["NotFound"]}} for method in METHODS}
    schema = loaded(document)
    cases = [schema[path][method].Case() for method in other_methods]
    cases += [schema["/nowhere"][method].Case() for method in METHODS]
    for case in cases:
        # The methods that were added to the document just now are not in Allow.
        judged_call(case, getattr(shared_server, listener), excluded_checks=[checks.allow_header_conformance])


@pytest.mark.parametrize(
    ("listener", "raw", "status"),
    [
        ("public", b"nonsense\r\n\r\n", 400),
        ("public", b"GET /webhooks HTTP/1.1\r\nno header\r\n\r\n", 400),
        ("public", b"GET /webhooks HTTP/1.1\r\n\r\n", 400),
        ("public", b"POST /webhooks HTTP/1.1\r\nHost: x\r\nContent-Length: two\r\n\r\n", 400),
        ("public", b"GET /webhooks HTTP/1.1\r\n", 408),
        ("public", b"GET /webhooks?" + b"y" * 5000 + b" HTTP/1.1\r\n\r\n", 414),
        ("public", b"GET /webhooks HTTP/1.1\r\nHost: x\r\nExpect: something\r\n\r\n", 417),
        ("public", b"GET /webhooks HTTP/1.1\r\nX: " + b"y" * 9000 + b"\r\n\r\n", 431),
        ("public", b"GET /webhooks HTTP/1.1\r\n" + b"X: y\r\n" * 200 + b"\r\n", 431),
        ("public", b"POST /webhooks HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: other\r\n\r\n", 501),
        ("admin", b"nonsense\r\n\r\n", 400),
        ("admin", b"GET /livez HTTP/1.1\r\nContent-Length: two\r\n\r\n", 400),
        ("admin", b"GET /livez HTTP/1.1\r\nContent-Length: 1025\r\n\r\n" + b"y" * 1025, 413),
        ("admin", b"GET /livez HTTP/1.1\r\nX: " + b"y" * 300_000 + b"\r\n\r\n", 431),
        ("admin", b"GET /livez HTTP/1.1\r\nTransfer-Encoding: other\r\n\r\n", 501),
    ],
    ids=lambda value: value[:40].decode() if isinstance(value, bytes) else str(value),
)
def test_invalid_http(strict_server: Server, listener: str, raw: bytes, status: int) -> None:
    """It is answered in plain text as the table of the document says, and the connection closes."""
    document, port = (PUBLIC, strict_server.port) if listener == "public" else (ADMIN, strict_server.admin_port)
    with socket.create_connection(("127.0.0.1", port), timeout=PATIENCE) as client:
        client.sendall(raw)
        answer = read_answer(client)
    assert answer.status == status
    assert f"| {status} |" in document["info"]["description"]
    assert answer.headers["content-type"].startswith("text/plain")
    assert answer.headers["connection"] == "close"
