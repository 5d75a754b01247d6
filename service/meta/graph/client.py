"""Requests to the Graph API: one app's, by its own secret or by an access token."""

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

GRAPH_TIMEOUT_SECONDS: Final = 20.0  # seconds; a subscription waits for the handshake, which Meta gives six
MAX_GRAPH_ATTEMPTS: Final = 3
MAX_GRAPH_WAIT_SECONDS: Final = 8.0
MAX_GRAPH_PAGES: Final = 100
MAX_GRAPH_RESPONSE_BYTES: Final = 4_194_304  # of an answer
MIN_HIDDEN_CHARACTERS: Final = 4  # characters of a secret


class AppCredentials(NamedTuple):
    """What requests are made with; the access token may be empty."""

    app_id: str
    app_secret: bytes
    access_token: bytes = b""

    def __repr__(self) -> str:
        return f"Keys(app_id={self.app_id!r})"


class Graph:
    """One version of the Graph API, asked by one app."""

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
        """*url* is `https://graph.facebook.com`; *sleep* waits between tries, *timeout* is of one of them.

        *proxy* is the URL of one on the way out, with user and password if it wants them; empty for none.
        """
        self.keys = keys
        self._base = f"{url}/{version}"
        self._timeout = timeout
        self._http = _pools(proxy, timeout)
        self._again = tenacity.Retrying(
            stop=tenacity.stop_after_attempt(MAX_GRAPH_ATTEMPTS),
            wait=tenacity.wait_random_exponential(max=MAX_GRAPH_WAIT_SECONDS),
            retry=tenacity.retry_if_exception(lambda ex: isinstance(ex, GraphRefused) and ex.again),
            sleep=sleep,
            reraise=True,
        )

    def ask(self, method: str, path: str, parameters: Mapping[str, str] | None = None, *, as_app: bool = False) -> Any:
        """Make one request and give what its answer holds; *as_app* with the app's own secret, else the access token.

        Tried again where that may help: all that is asked here may be asked twice. Raises GraphRefused.
        """
        return self._again(self._asked, method, path, dict(parameters or {}), as_app=as_app)

    def pages(self, path: str, parameters: Mapping[str, str], *, as_app: bool = False) -> Iterator[dict[str, Any]]:
        """Give every item of a list, page after page. Raises GraphRefused."""
        after = ""
        for _ in range(MAX_GRAPH_PAGES):
            page = self.ask("GET", path, {**parameters, **({"after": after} if after else {})}, as_app=as_app)
            items = page.get("data")
            yield from (item for item in items if isinstance(item, dict)) if isinstance(items, list) else ()
            following = _after(page)
            if following is None or following == after != "":
                return
            if not following:
                break  # there is more, and nobody says where
            after = following
        raise errors.of_stranger(HTTPStatus.OK, f"{self._base}/{path}")

    def _asked(self, method: str, path: str, parameters: dict[str, str], *, as_app: bool) -> dict[str, Any]:
        keys = self.keys
        token = f"{keys.app_id}|".encode() + keys.app_secret if as_app else keys.access_token
        if not as_app and keys.app_secret:
            parameters = {**parameters, "appsecret_proof": hmac.digest(keys.app_secret, token, "sha256").hex()}
        # In a header, so that no proxy on the way has it in its log.
        headers = {"Authorization": "Bearer " + token.decode("latin-1"), "Accept": "application/json"}
        url, body = f"{self._base}/{path}", None
        if method == "POST":
            headers["Content-Type"] = "application/x-www-form-urlencoded"
            body = urlencode(parameters)
        elif parameters:
            url += f"?{urlencode(parameters)}"

        def ask() -> tuple[urllib3.BaseHTTPResponse, bytes]:
            answer = self._http.request(
                method, url, body=body, headers=headers, redirect=False, preload_content=False, decode_content=False
            )
            content = answer.read(MAX_GRAPH_RESPONSE_BYTES + 1)
            answer.close() if len(content) > MAX_GRAPH_RESPONSE_BYTES else answer.release_conn()
            return answer, content

        try:
            answer, content = within(self._timeout, ask)
        except (urllib3.exceptions.HTTPError, TimeoutError) as ex:
            raise errors.of_transport(ex, self._base) from ex
        told = {**parameters, **json.loads(parameters.get("webhook_configuration", "{}"))}
        secrets = [told.get(name, "") for name in ("verify_token", "appsecret_proof")]
        hidden = [keys.app_secret.decode("latin-1"), keys.access_token.decode("latin-1"), *secrets]
        callback_url = told.get("callback_url") or told.get("override_callback_uri", "")
        return _content(answer, content, self._base, hidden, callback_url)


def _pools(proxy: str, timeout: float) -> urllib3.PoolManager:
    if not proxy:
        return urllib3.PoolManager(retries=False, timeout=timeout)
    user = parse_url(proxy).auth
    headers = make_headers(proxy_basic_auth=unquote(user)) if user else {}
    return urllib3.ProxyManager(proxy, proxy_headers=headers, retries=False, timeout=timeout)


def _after(page: dict[str, Any]) -> str | None:
    """Read where the next page begins: None where there is none, empty where that is not said."""
    paging = page.get("paging")
    if not isinstance(paging, dict) or not paging.get("next"):
        return None
    cursors = paging.get("cursors")
    return str(cursors.get("after") or "") if isinstance(cursors, dict) else ""


def _content(
    answer: urllib3.BaseHTTPResponse, content: bytes, base: str, hidden: list[str], callback_url: str
) -> dict[str, Any]:
    try:
        found = json.loads(content) if len(content) <= MAX_GRAPH_RESPONSE_BYTES else None
    except (ValueError, RecursionError):
        found = None
    if isinstance(found, dict) and isinstance(found.get("error"), dict):
        error = {key: _without(value, hidden) for key, value in found["error"].items()}
        raise errors.of_answer(error, answer.headers, callback_url)
    if found is True:  # some edges say so, and nothing else
        found = {"success": True}
    if answer.status != HTTPStatus.OK or not isinstance(found, dict):
        raise errors.of_stranger(answer.status, base)
    if str(found.get("success", "true")).lower() != "true":
        raise errors.of_stranger(answer.status, base)
    return found


def _without(value: object, hidden: list[str]) -> object:
    """Take out of what Meta says what was sent to it in secret; a word so short that it may be anything stays."""
    if isinstance(value, str):
        for secret in hidden:
            for form in (secret, quote(secret, safe=""), quote_plus(secret)):
                value = value.replace(form, "***") if len(secret) >= MIN_HIDDEN_CHARACTERS else value
    return value
