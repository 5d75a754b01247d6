"""A fake of the part of Meta's Graph API that sets up a webhook, with its handshake and its errors.

It imports only the standard library and nothing of the service, so that it runs anywhere: `python graph.py STATE PORT
[CERT]`. Sources: "Graph API > Webhooks > Subscriptions edge", "WhatsApp Business Platform > Webhooks > Overrides",
"Graph API > Handling errors"; the wording of errors from reports of those who got them.
"""

import hashlib
import hmac
import http.client
import json
import re
import secrets
import socket
import ssl
import sys
import threading
import time
from collections.abc import Callable, Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, Self
from urllib.parse import parse_qsl, urlencode, urlsplit

VERSIONS = ("v24.0", "v25.0", "v26.0")
OBJECT = "whatsapp_business_account"
HANDSHAKE_TIMEOUT_SECONDS = 6.0  # as users of the API report
PAGE_ITEMS = 2  # few, so that lists have several pages
FIELDS = frozenset(
    "account_alerts account_review_update account_settings_update account_update automatic_events "
    "business_capability_update business_username_updates calls flows group_lifecycle_update "
    "group_participants_update group_settings_update group_status_update history message_template_components_update "
    "message_template_quality_update message_template_status_update messages messaging_handovers partner_solutions "
    "payment_configuration_update phone_number_name_update phone_number_quality_update security smb_app_state_sync "
    "smb_message_echoes standby template_category_update template_correct_category_detection user_preferences".split()
)


class Refused(Exception):
    """An error response of the Graph API."""

    def __init__(self, code: int, message: str, *, status: int = 400, **more: Any) -> None:
        super().__init__(message)
        self.status = status
        self.error = {"message": message, "type": "OAuthException", "code": code, "fbtrace_id": "Atest", **more}


def state() -> dict[str, Any]:
    """Return the state before anything is set up: an app, an account with three numbers, a system user's token."""
    return {
        "apps": {
            "188559381496048": {
                "secret": secrets.token_hex(16),
                "name": "Shop",
                "privacy_policy_url": "https://example.com/privacy",
                "subscriptions": {},
            }
        },
        "accounts": {
            "102290129340398": {
                "name": "Shop account",
                "apps": {},
                "numbers": {
                    "106540352242922": {"display_phone_number": "+1 555-078-3881", "overrides": {}},
                    "106540352242923": {"display_phone_number": "+1 555-078-3882", "overrides": {}},
                    "106540352242924": {"display_phone_number": "+1 555-078-3883", "overrides": {}},
                },
            }
        },
        "tokens": {f"EAA{secrets.token_hex(20)}": {"app": "188559381496048", "accounts": ["102290129340398"]}},
    }


class Graph:
    """The API as a server, with a state that tests may change.

    If `adds`, a POST of fields keeps the fields that it does not name. `faults` are responses to the next requests
    whose method and path match. `on_ask` has functions to call at requests with these numbers. `stands_for` maps hosts
    of callback URLs to the `http://host:port` to call instead.
    """

    def __init__(
        self,
        found: dict[str, Any],
        *,
        address: tuple[str, int] = ("127.0.0.1", 0),
        tls: ssl.SSLContext | None = None,
        trust: ssl.SSLContext | None = None,
        stands_for: Mapping[str, str] | None = None,
    ) -> None:
        self.state = found
        self.answers_as = ""  # a version; empty: the requested one
        self.adds = False
        self.faults: list[dict[str, Any]] = []
        self.asked: list[tuple[str, str]] = []
        self.on_ask: dict[int, Callable[[], object]] = {}
        self.changed: list[tuple[str, str, dict[str, str]]] = []
        self._trust = trust or ssl.create_default_context()
        self._stands_for = dict(stands_for or {})
        graph = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"
            wbufsize = -1  # head and body in one segment: otherwise each response waits 40 ms for an acknowledgement

            def handle_any(self) -> None:
                length = int(self.headers.get("Content-Length") or 0)
                graph._answer(self, self.rfile.read(length).decode())

            do_GET = do_POST = do_DELETE = handle_any  # noqa: N815  the library's names

            def log_message(self, *_arguments: object) -> None:
                return

        self.server = ThreadingHTTPServer(address, Handler)
        self.server.daemon_threads = True
        if tls:
            self.server.socket = tls.wrap_socket(self.server.socket, server_side=True)
        self.port = self.server.server_address[1]
        self._thread = threading.Thread(target=self.server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_raised: object) -> None:
        self.server.shutdown()
        self.server.server_close()

    def _answer(self, request: BaseHTTPRequestHandler, body: str) -> None:
        url = urlsplit(request.path)
        parameters = dict(parse_qsl(url.query, keep_blank_values=True)) | dict(parse_qsl(body, keep_blank_values=True))
        self.asked.append((request.command, request.path))
        self.on_ask.get(len(self.asked), lambda: None)()
        headers: dict[str, str] = {}
        try:
            fault = self._fault(request.command, url.path)
            if fault and "sleep" in fault:
                time.sleep(fault["sleep"])
            if fault and "raw" in fault:
                status, content = fault["status"], fault["raw"].encode()
            elif fault and "error" in fault:
                headers = fault.get("headers", {})
                raise Refused(**fault["error"])
            else:
                status = 200
                content = json.dumps(self._do(request, url.path, parameters)).encode()
        except Refused as ex:
            status, content = ex.status, json.dumps({"error": ex.error}).encode()
        request.send_response(status)
        own = {
            "Content-Type": "application/json",
            "Content-Length": str(len(content)),
            "facebook-api-version": self.answers_as or request.path.split("/")[1],
        }
        for name, value in (own | headers).items():
            request.send_header(name, value)
        request.end_headers()
        request.wfile.write(content)

    def _fault(self, method: str, path: str) -> dict[str, Any] | None:
        for fault in self.faults:
            if fault.get("method", method) == method and re.search(fault.get("path", ""), path) and fault["times"] > 0:
                fault["times"] -= 1
                return fault
        return None

    def _do(self, request: BaseHTTPRequestHandler, path: str, parameters: dict[str, str]) -> Any:
        version, object_id, *edge = [*path.split("/")[1:], "", ""][: max(path.count("/"), 2)]
        if version not in VERSIONS or len(edge) > 1:
            raise Refused(2500, f"Unknown path components: {path}")
        token = request.headers.get("Authorization", "").removeprefix("Bearer ") or parameters.get("access_token", "")
        app, accounts = self._who(token, parameters)
        call = (request.command, *edge)
        if object_id in self.state["apps"]:
            return self._app(call, object_id, app, as_app="|" in token, parameters=parameters)
        owner = next(
            (key for key, each in self.state["accounts"].items() if object_id in (key, *each["numbers"])), None
        )
        if owner is None or owner not in accounts:
            message = (
                f"Unsupported {request.command.lower()} request. Object with ID '{object_id}' does not exist, cannot "
            )
            raise Refused(
                100,
                message + "be loaded due to missing permissions, or does not support this operation.",
                error_subcode=33,
            )
        if "may not" in self._token(token):
            raise Refused(200, "(#200) Permissions error", status=403)
        if object_id == owner:
            return self._account(call, object_id, app, parameters)
        return self._number(call, self.state["accounts"][owner]["numbers"][object_id], object_id, app, parameters)

    def _token(self, token: str) -> dict[str, Any]:
        found: dict[str, Any] = self.state["tokens"].get(token, {})
        return found

    def _who(self, token: str, parameters: dict[str, str]) -> tuple[str, list[str]]:
        """Return the app and the accounts that the token may see; an app's own token sees none."""
        if not token:
            raise Refused(104, "An access token is required to request this resource.")
        name, bar, secret = token.partition("|")
        if bar:
            if name not in self.state["apps"]:
                raise Refused(190, "Error validating application. Cannot get application info due to a system error.")
            if not hmac.compare_digest(secret, self.state["apps"][name]["secret"]):
                raise Refused(190, "Invalid OAuth access token signature.")
            return name, []
        found = self._token(token)
        if not found:
            raise Refused(190, "Invalid OAuth access token - Cannot parse access token")
        if "subcode" in found:
            raise Refused(
                190, "Error validating access token: Session has expired on Monday.", error_subcode=found["subcode"]
            )
        proof = hmac.new(
            self.state["apps"][found["app"]]["secret"].encode(), token.encode(), hashlib.sha256
        ).hexdigest()
        if parameters.get("appsecret_proof", proof) != proof:
            raise Refused(100, "Invalid appsecret_proof provided in the API argument")
        return found["app"], found["accounts"]

    def _app(
        self, call: tuple[str, ...], object_id: str, app: str, *, as_app: bool, parameters: dict[str, str]
    ) -> dict[str, Any]:
        found = self.state["apps"][object_id]
        if call == ("GET",):
            return _fields({"id": object_id, **found}, parameters)
        if not as_app or object_id != app:
            raise Refused(15, "(#15) This method must be called with an app access_token.")
        subscriptions = found["subscriptions"]
        if call == ("GET", "subscriptions"):
            return _page([{"object": name, **about} for name, about in subscriptions.items()], parameters)
        if call == ("POST", "subscriptions"):
            self._subscribe(subscriptions, parameters)
        elif call == ("DELETE", "subscriptions"):
            _unsubscribe(subscriptions, parameters)
        else:
            raise Refused(100, f"Unsupported {call[0].lower()} request.")
        self.changed.append((call[0], f"{object_id}/subscriptions", parameters))
        return {"success": True}

    def _subscribe(self, subscriptions: dict[str, Any], parameters: dict[str, str]) -> None:
        for name in ("object", "callback_url", "verify_token", "fields"):
            if not parameters.get(name):
                raise Refused(100, f"(#100) The parameter {name} is required")
        chosen = parameters["fields"].split(",")
        for position, field in enumerate(chosen):
            if field not in FIELDS:
                raise Refused(100, f"(#100) Param fields[{position}] must be one of {{{', '.join(sorted(FIELDS))}}}")
        self._verify(parameters["callback_url"], parameters["verify_token"])
        if self.adds and parameters["object"] in subscriptions:
            chosen += [each["name"] for each in subscriptions[parameters["object"]]["fields"]]
        subscriptions[parameters["object"]] = {
            "callback_url": parameters["callback_url"],
            "active": True,
            "fields": [{"name": name, "version": VERSIONS[-1]} for name in sorted(set(chosen))],
        }

    def _account(self, call: tuple[str, ...], object_id: str, app: str, parameters: dict[str, str]) -> dict[str, Any]:
        found = self.state["accounts"][object_id]
        if call == ("GET",):
            return _fields({"id": object_id, "name": found["name"]}, parameters)
        if call == ("GET", "phone_numbers"):
            numbers = [self._number_object(key, each, app) for key, each in found["numbers"].items()]
            return _page([_fields(each, parameters) for each in numbers], parameters)
        if call == ("GET", "subscribed_apps"):
            about = [
                {"whatsapp_business_api_data": {"id": key, "link": "https://example.com", "name": f"app {key}"}}
                | ({"override_callback_uri": override} if override else {})
                for key, override in found["apps"].items()
            ]
            return _page(about, parameters)
        if call == ("POST", "subscribed_apps"):
            override = parameters.get("override_callback_uri")
            if override:
                if app not in found["apps"]:
                    raise Refused(
                        100,
                        "(#100) Before override the current callback uri, your app must be subscribed to receive "
                        "messages for WhatsApp Business Account",
                    )
                self._verify(override, parameters.get("verify_token", ""))
            found["apps"][app] = override  # a request without a body removes an override
        elif call == ("DELETE", "subscribed_apps"):
            found["apps"].pop(app, None)
        else:
            raise Refused(100, f"Unsupported {call[0].lower()} request.")
        self.changed.append((call[0], f"{object_id}/subscribed_apps", parameters))
        return {"success": "true"}  # a string, as in some of Meta's documentation

    def _number(
        self, call: tuple[str, ...], found: dict[str, Any], object_id: str, app: str, parameters: dict[str, str]
    ) -> dict[str, Any]:
        number = self._number_object(object_id, found, app)
        kind = "node type (WhatsAppBusinessPhoneNumber)"
        for field in (*call[1:], *filter(None, parameters.get("fields", "").split(","))):
            if field not in number:
                raise Refused(100, f"(#100) Tried accessing nonexisting field ({field}) on {kind}")
        if call == ("GET",):
            return _fields(number, parameters)
        if call != ("POST",) or "webhook_configuration" not in parameters:
            raise Refused(100, f"Unsupported {call[0].lower()} request.")
        configuration = json.loads(parameters["webhook_configuration"])
        if configuration["override_callback_uri"]:
            self._verify(configuration["override_callback_uri"], configuration.get("verify_token", ""))
        found["overrides"][app] = configuration["override_callback_uri"]
        self.changed.append(("POST", object_id, parameters))
        return {"success": True}

    def _number_object(self, object_id: str, found: dict[str, Any], app: str) -> dict[str, Any]:
        own = self.state["apps"][app]["subscriptions"].get(OBJECT, {}).get("callback_url")
        configuration = {"application": own} if own else {}
        if found["overrides"].get(app):
            configuration["phone_number"] = found["overrides"][app]
        return {
            "id": object_id,
            "display_phone_number": found["display_phone_number"],
            "webhook_configuration": configuration,
        }

    def _verify(self, callback: str, token: str) -> None:
        """Do the handshake, as Meta does before it accepts a URL."""
        challenge = str(secrets.randbelow(10**10))
        url = urlsplit(callback)
        if url.scheme != "https":
            raise Refused(100, "(#100) Invalid callback URI format")
        query = urlencode({"hub.mode": "subscribe", "hub.challenge": challenge, "hub.verify_token": token})
        target = f"{url.path.replace('+', '%20') or '/'}?{url.query + '&' if url.query else ''}{query}"
        try:
            status, reason, body = self._call(url.hostname or "", url.port or 443, target)
        except OSError as ex:
            raise Refused(2200, _failed(f"curl_errno = {_curl(ex)}; curl_error = {ex}; HTTP Status Code = 0")) from ex
        except http.client.HTTPException as ex:
            raise Refused(2200, _failed("curl_errno = 52; curl_error = Empty reply from server")) from ex
        if status != 200:
            raise Refused(2200, _failed(f"HTTP Status Code = {status}; HTTP Message = {reason}"))
        if body != challenge:
            raise Refused(
                2200,
                f'(#2200) Response does not match challenge, expected value="{challenge}", received="{body[:200]}"',
            )

    def _call(self, host: str, port: int, target: str) -> tuple[int, str, str]:
        substitute = urlsplit(self._stands_for.get(host, ""))
        if substitute.hostname:
            connection = http.client.HTTPConnection(
                substitute.hostname, substitute.port or 80, timeout=HANDSHAKE_TIMEOUT_SECONDS
            )
        else:
            connection = http.client.HTTPSConnection(host, port, timeout=HANDSHAKE_TIMEOUT_SECONDS, context=self._trust)
        try:
            connection.request("GET", target, headers={"Host": host, "User-Agent": "facebookplatform/1.0"})
            response = connection.getresponse()
            return response.status, response.reason, response.read().decode("utf-8", "replace")
        finally:
            connection.close()


def _failed(why: str) -> str:
    return f"(#2200) Callback verification failed with the following errors: {why}"


def _curl(ex: OSError) -> int:
    if isinstance(ex, ssl.SSLCertVerificationError):
        return 60
    if isinstance(ex, ssl.SSLError):
        return 35
    if isinstance(ex, socket.gaierror):
        return 6
    if isinstance(ex, ConnectionRefusedError):
        return 7
    return 28 if isinstance(ex, TimeoutError) else 56


def _unsubscribe(subscriptions: dict[str, Any], parameters: dict[str, str]) -> None:
    if "fields" not in parameters:
        subscriptions.pop(parameters.get("object", ""), None)
        return
    removed = parameters["fields"].split(",")
    about = subscriptions[parameters["object"]]
    about["fields"] = [each for each in about["fields"] if each["name"] not in removed]


def _fields(found: dict[str, Any], parameters: dict[str, str]) -> dict[str, Any]:
    wanted = parameters.get("fields", "id,name").split(",")
    return {name: found[name] for name in ("id", *wanted) if found.get(name) is not None}


def _page(items: list[Any], parameters: dict[str, str]) -> dict[str, Any]:
    start = int(parameters.get("after") or 0)
    page: dict[str, Any] = {"data": items[start : start + PAGE_ITEMS]}
    if start + PAGE_ITEMS < len(items):
        page["paging"] = {"cursors": {"after": str(start + PAGE_ITEMS)}, "next": "https://graph.facebook.com/more"}
    return page


def main() -> None:
    """Serve the API; arguments: a file with the state and `stands_for`, a port, a file with key and certificate."""
    initial = json.loads(Path(sys.argv[1]).read_text())
    tls = None
    if len(sys.argv) > 3:
        tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        tls.load_cert_chain(sys.argv[3])
    with Graph(initial, address=("", int(sys.argv[2])), tls=tls, stands_for=initial.get("stands_for")) as graph:
        print(f"serving on port {graph.port}", flush=True)
        seen = 0
        while True:
            time.sleep(0.2)
            for method, path, _ in graph.changed[seen:]:
                print(f"{method} {path}", flush=True)
            seen = len(graph.changed)


if __name__ == "__main__":
    main()
