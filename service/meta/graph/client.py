"""Requests to the Graph API: one app's, by its own secret or by an access token."""

import hmac
import json
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Final, NamedTuple
from urllib.parse import urlencode

import tenacity
import urllib3

from service.errors import GraphRefused
from service.meta.graph import trouble

TIMEOUT: Final = 20.0  # seconds; a subscription waits for the handshake, which Meta gives six
TRIES: Final = 3
LONGEST_WAIT: Final = 8.0  # seconds
MOST_PAGES: Final = 100


class Keys(NamedTuple):
    """What requests are made with; the access token may be empty."""

    app_id: str
    app_secret: bytes
    access_token: bytes = b""

    def __repr__(self) -> str:
        return f"Keys(app_id={self.app_id!r})"


class Graph:
    """One version of the Graph API, asked by one app."""

    def __init__(
        self, url: str, version: str, keys: Keys, *, sleep: Callable[[float], None], timeout: float = TIMEOUT
    ) -> None:
        """*url* is `https://graph.facebook.com`; *sleep* waits between tries, *timeout* is of one of them."""
        self.keys = keys
        self._base = f"{url}/{version}"
        self._http = urllib3.PoolManager(retries=False, timeout=timeout)
        self._again = tenacity.Retrying(
            stop=tenacity.stop_after_attempt(TRIES),
            wait=tenacity.wait_random_exponential(max=LONGEST_WAIT),
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
        after: dict[str, str] = {}
        for _ in range(MOST_PAGES):
            page = self.ask("GET", path, {**parameters, **after}, as_app=as_app)
            yield from (item for item in page.get("data", ()) if isinstance(item, dict))
            paging = page.get("paging")
            if not isinstance(paging, dict) or not paging.get("next"):
                return
            after = {"after": str(paging.get("cursors", {}).get("after", ""))}

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
        try:
            answer = self._http.request(method, url, body=body, headers=headers, redirect=False)
        except urllib3.exceptions.HTTPError as ex:
            raise trouble.of_transport(ex, self._base) from ex
        return _content(answer, self._base)


def _content(answer: urllib3.BaseHTTPResponse, base: str) -> dict[str, Any]:
    try:
        found = json.loads(answer.data)
    except ValueError:
        found = None
    if isinstance(found, dict) and isinstance(found.get("error"), dict):
        raise trouble.of_answer(found["error"], answer.headers)
    if found is True:  # some edges say so, and nothing else
        found = {"success": True}
    if answer.status != 200 or not isinstance(found, dict):  # noqa: PLR2004  all that Meta documents as success
        raise trouble.of_stranger(answer.status, base)
    if str(found.get("success", "true")).lower() != "true":
        raise trouble.of_stranger(answer.status, base)
    return found
