"""A worker's parts, started in order and stopped in the mirror of it."""

import itertools
import secrets
import socket
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager

from service.admin.app import create_admin
from service.admin.listener import AdminServer
from service.admin.metrics_page import MetricsPage
from service.config import Config
from service.receiver.app import Parts, create_app
from service.receiver.group_commit import Writer
from service.receiver.reload import Watch
from service.receiver.webhook import Limits
from service.storage.url_reload import Source
from service.telemetry import logs, tracing
from service.telemetry.metrics import Measured
from service.telemetry.tracing import Wsgi


@contextmanager
def running(
    config: Config,
    environ: Mapping[str, str],
    *,
    version: str,
    measured: Measured,
    admin_listener: socket.socket,
    inbox: Source,
    relay_seen: Callable[[int], int | None],
) -> Iterator[Wsgi]:
    """Start everything that a worker needs and give its application; stop it all at the end.

    *measured* are the metrics and the registry that is scraped; *relay_seen* is as for `Server`. The order: what is
    looked at by others first; the admin listener last, so that it never speaks of parts that are not there: it stops
    first for the same reason.
    """
    metrics, registry = measured
    with ExitStack() as stack:
        traced = tracing.from_environ(
            environ, version=version, report=lambda told: logs.get("server").error("tracing is off", problems=told)
        )
        stack.callback(traced.close)  # last, so that the spans of the last commit still leave
        writer = Writer(inbox, inbox.moved, metrics=metrics.inbox, traced=traced)
        writer.start()
        stack.callback(writer.stop)  # commits what waits

        def refresh() -> None:
            writer.refresh()
            metrics.http.refresh()
            metrics.inbox.relay_seen(relay_seen(int(time.time() * 1000)))

        watch = Watch(config, metrics.credentials, refresh)
        watch.start()
        stack.callback(watch.stop)
        checks = {"credentials": watch.missing, "inbox": writer.trouble, "draining": watch.draining}
        parts = Parts(
            path=config.path,
            chosen=config.fields,
            limits=Limits(
                body_bytes=config.max_body_bytes,
                read_timeout=config.read_timeout,
                accept_timeout=config.accept_timeout,
            ),
            credentials=watch.credentials,
            submit=writer.submit,
            metrics=metrics,
            traced=traced,
            pseudonyms=watch.pseudonyms,
            floods=watch.floods,
            now=time.time,
            nonce=_nonces(),
            health_path=config.health_path,
            checks=checks,
        )
        admin = AdminServer(create_admin(checks, MetricsPage(registry, refresh)), admin_listener)
        admin.start()
        stack.callback(admin.stop)
        yield create_app(parts)


def _nonces() -> Callable[[], str]:
    start, numbers = secrets.token_hex(8), itertools.count()
    return lambda: f"{start}-{next(numbers)}"
