"""A Falcon application that answers with plain text, knows no path and no method but its own, and reveals nothing."""

from typing import Any, Final

import falcon

TEXT: Final = "text/plain; charset=utf-8"
METHODS: Final = {"GET": "on_get", "HEAD": "on_head", "POST": "on_post"}
WRONG_PATH: Final = "not found\n"


def strict_app(middleware: list[Any]) -> falcon.App[Any, Any]:
    """Return an application without routes; *middleware* sees each request before its method and path are judged."""
    app = falcon.App(media_type=TEXT, middleware=[*middleware, _GetAndPost()])
    app.set_error_serializer(_serialize)
    app.resp_options.xml_error_serialization = False
    return app


def _serialize(_req: falcon.Request, resp: falcon.Response, ex: falcon.HTTPError) -> None:
    """Write Falcon's own errors: a path or a method that is not there."""
    resp.content_type = TEXT
    resp.text = WRONG_PATH if ex.status == falcon.HTTP_404 else f"{str(ex.status)[4:].lower()}\n"


class _GetAndPost:
    """Refuses methods that a resource does not have, OPTIONS among them, and what only Falcon takes for its path."""

    def process_resource(self, req: falcon.Request, _resp: falcon.Response, resource: object, _params: object) -> None:
        if req.path != req.uri_template:
            raise falcon.HTTPNotFound
        if req.method not in METHODS or not hasattr(resource, METHODS[req.method]):
            raise falcon.HTTPMethodNotAllowed([name for name, on in METHODS.items() if hasattr(resource, on)])
