"""Requests to the Graph API, authenticated with an app's secret or with an access token."""

import hmac
import json
from collections.abc import Callable, Iterator, Mapping
from http import HTTPStatus
from typing import Any, Final, NamedTuple
from urllib.parse import quote, quote_plus, unquote, urlencode

import tenacity
import urllib3
from urllib3.util import make_headers, parse_url

from service.deadline import within
from service.errors import GraphRefused
from service.meta.graph import errors

GRAPH_TIMEOUT_SECONDS: Final = 20.0  # subscribing includes the handshake, for which Meta waits six seconds
MAX_GRAPH_ATTEMPTS: Final = 3
MAX_GRAPH_WAIT_SECONDS: Final = 8.0
MAX_GRAPH_PAGES: Final = 100
MAX_GRAPH_RESPONSE_BYTES: Final = 4_194_304
MIN_HIDDEN_CHARACTERS: Final = 4  # shorter secrets are not removed from messages: they may be any word


class AppCredentials(NamedTuple):
    """The id and the secrets that requests are made with; the access token may be empty."""

    app_id: str
    app_secret: bytes
    access_token: bytes = b""

    def __repr__(self) -> str:
        return f"AppCredentials(app_id={self.app_id!r})"


class Graph:
    """One version of the Graph API, called by one app."""

    def __init__(
        self,
        url: str,
        version: str,
        keys: AppCredentials,
        *,
        sleep: Callable[[float], None],
        timeout: float = GRAPH_TIMEOUT_SECONDS,
        proxy: str = "",
    ) -> None:
        """*url* is `https://graph.facebook.com`; *sleep* waits between attempts, each of which has the *timeout*.

        *proxy* is the URL of an outgoing proxy, with user and password if it requires them; empty for none.
        """
        self.keys = keys
        self.version = version
        self.answered_version = ""  # of the last response; empty if it named none
        self._base = f"{url}/{version}"
        self._timeout = timeout
        self._http = _pools(proxy, timeout)
        self._retry = tenacity.Retrying(
            stop=tenacity.stop_after_attempt(MAX_GRAPH_ATTEMPTS),
            wait=tenacity.wait_random_exponential(max=MAX_GRAPH_WAIT_SECONDS),
            retry=tenacity.retry_if_exception(lambda ex: isinstance(ex, GraphRefused) and ex.again),
            sleep=sleep,
            reraise=True,
        )

    def ask(self, method: str, path: str, parameters: Mapping[str, str] | None = None, *, as_app: bool = False) -> Any:
        """Make a request and return the response's JSON; *as_app* uses the app's secret, else the access token.

        Retried if that may help: every request made here is safe to repeat. Raises GraphRefused.
        """
        return self._retry(self._attempt, method, path, dict(parameters or {}), as_app=as_app)

    def pages(self, path: str, parameters: Mapping[str, str], *, as_app: bool = False) -> Iterator[dict[str, Any]]:
        """Yield every item of a list, page by page. Raises GraphRefused."""
        after = ""
        for _ in range(MAX_GRAPH_PAGES):
            page = self.ask("GET", path, {**parameters, **({"after": after} if after else {})}, as_app=as_app)
            items = page.get("data")
            yield from (item for item in items if isinstance(item, dict)) if isinstance(items, list) else ()
            next_page = _after(page)
            if next_page is None or next_page == after != "":
                return
            if not next_page:
                break  # there is another page, but no cursor for it
            after = next_page
        raise errors.of_other_response(HTTPStatus.OK, f"{self._base}/{path}")

    def _attempt(self, method: str, path: str, parameters: dict[str, str], *, as_app: bool) -> dict[str, Any]:
        keys = self.keys
        token = f"{keys.app_id}|".encode() + keys.app_secret if as_app else keys.access_token
        if not as_app and keys.app_secret:
            parameters = {**parameters, "appsecret_proof": hmac.digest(keys.app_secret, token, "sha256").hex()}
        # In a header, because proxies log URLs.
        headers = {"Authorization": "Bearer " + token.decode("latin-1"), "Accept": "application/json"}
        url, body = f"{self._base}/{path}", None
        if method == "POST":
            headers["Content-Type"] = "application/x-www-form-urlencoded"
            body = urlencode(parameters)
        elif parameters:
            url += f"?{urlencode(parameters)}"

        def send() -> tuple[urllib3.BaseHTTPResponse, bytes]:
            response = self._http.request(
                method, url, body=body, headers=headers, redirect=False, preload_content=False, decode_content=False
            )
            content = response.read(MAX_GRAPH_RESPONSE_BYTES + 1)
            response.close() if len(content) > MAX_GRAPH_RESPONSE_BYTES else response.release_conn()
            return response, content

        try:
            response, content = within(self._timeout, send)
        except (urllib3.exceptions.HTTPError, TimeoutError) as ex:
            raise errors.of_transport(ex, self._base) from ex
        self.answered_version = response.headers.get("facebook-api-version", "")
        sent = {**parameters, **json.loads(parameters.get("webhook_configuration", "{}"))}
        secrets = [sent.get(name, "") for name in ("verify_token", "appsecret_proof")]
        hidden = [keys.app_secret.decode("latin-1"), keys.access_token.decode("latin-1"), *secrets]
        callback_url = sent.get("callback_url") or sent.get("override_callback_uri", "")
        return _content(response, content, self._base, hidden, callback_url)


def _pools(proxy: str, timeout: float) -> urllib3.PoolManager:
    if not proxy:
        return urllib3.PoolManager(retries=False, timeout=timeout)
    user = parse_url(proxy).auth
    headers = make_headers(proxy_basic_auth=unquote(user)) if user else {}
    return urllib3.ProxyManager(proxy, proxy_headers=headers, retries=False, timeout=timeout)


def _after(page: dict[str, Any]) -> str | None:
    """Return the cursor of the next page: None if there is no next page, empty if the cursor is missing."""
    paging = page.get("paging")
    if not isinstance(paging, dict) or not paging.get("next"):
        return None
    cursors = paging.get("cursors")
    return str(cursors.get("after") or "") if isinstance(cursors, dict) else ""


def _content(
    response: urllib3.BaseHTTPResponse, content: bytes, base: str, hidden: list[str], callback_url: str
) -> dict[str, Any]:
    try:
        document = json.loads(content) if len(content) <= MAX_GRAPH_RESPONSE_BYTES else None
    except (ValueError, RecursionError):
        document = None
    if isinstance(document, dict) and isinstance(document.get("error"), dict):
        error = {key: _without(value, hidden) for key, value in document["error"].items()}
        raise errors.of_error(error, response.headers, callback_url)
    if document is True:  # the whole response of some edges
        document = {"success": True}
    if response.status != HTTPStatus.OK or not isinstance(document, dict):
        raise errors.of_other_response(response.status, base)
    if str(document.get("success", "true")).lower() != "true":
        raise errors.of_other_response(response.status, base)
    return document


def _without(value: object, hidden: list[str]) -> object:
    """Replace secrets that Meta repeats in its message, as they are or percent-encoded."""
    if isinstance(value, str):
        for secret in hidden:
            for form in (secret, quote(secret, safe=""), quote_plus(secret)):
                value = value.replace(form, "***") if len(secret) >= MIN_HIDDEN_CHARACTERS else value
    return value
