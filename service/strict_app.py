"""A Falcon application with plain-text errors, exact paths and methods, and no information about the server."""

from typing import Any, Final

import falcon

TEXT: Final = "text/plain; charset=utf-8"
METHODS: Final = {"GET": "on_get", "HEAD": "on_head", "POST": "on_post"}
WRONG_PATH: Final = "not found\n"


def strict_app(middleware: list[Any]) -> falcon.App[Any, Any]:
    """Return an application without routes; *middleware* runs before the method and path are checked."""
    app = falcon.App(media_type=TEXT, middleware=[*middleware, _GetAndPost()])
    app.set_error_serializer(_serialize)
    app.resp_options.xml_error_serialization = False
    return app


def _serialize(_req: falcon.Request, resp: falcon.Response, ex: falcon.HTTPError) -> None:
    """Write Falcon's own errors, such as an unknown path or method, as plain text."""
    resp.content_type = TEXT
    resp.text = WRONG_PATH if ex.status == falcon.HTTP_404 else f"{str(ex.status)[4:].lower()}\n"


class _GetAndPost:
    """Rejects methods that a resource does not have, including OPTIONS, and paths that Falcon matches only loosely."""

    def process_resource(self, req: falcon.Request, _resp: falcon.Response, resource: object, _params: object) -> None:
        if req.path != req.uri_template:
            raise falcon.HTTPNotFound
        if req.method not in METHODS or not hasattr(resource, METHODS[req.method]):
            raise falcon.HTTPMethodNotAllowed([name for name, on in METHODS.items() if hasattr(resource, on)])
