"""Starts the parts of a worker in order, and stops them in reverse order."""

import itertools
import secrets
import socket
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager

from service.admin.app import create_admin
from service.admin.listener import AdminServer
from service.admin.metrics_page import MetricsPage
from service.config import Config
from service.instruments import Instruments
from service.receiver.app import create_app
from service.receiver.group_commit import GroupCommit
from service.receiver.reload import ReloadThread
from service.receiver.webhook import Limits, Webhook
from service.storage.url_reload import InboxSource
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
    inbox: InboxSource,
    relay_seen: Callable[[int], int | None],
) -> Iterator[Wsgi]:
    """Start the parts of a worker and yield its application; stop the parts at the end.

    *measured* are the metrics and the registry to scrape; *relay_seen* is as for `Server`. A part starts after those
    that it uses. The admin listener starts last and stops first, so that it never reports on parts that do not exist.
    """
    metrics, registry = measured
    with ExitStack() as stack:
        traced = tracing.from_environ(
            environ,
            version=version,
            report=lambda problems: logs.get("server").error("tracing is off", problems=problems),
        )
        stack.callback(traced.close)  # stops last, so that the spans of the last commit are exported
        instruments = Instruments(metrics=metrics, tracing=traced)
        group_commit = GroupCommit(inbox, inbox.moved, instruments)
        group_commit.start()
        stack.callback(group_commit.stop)  # commits the waiting events

        def refresh() -> None:
            group_commit.refresh()
            metrics.http.refresh()
            metrics.inbox.relay_seen(relay_seen(instruments.now_ms()))

        reload = ReloadThread(config, metrics.credentials, refresh)
        reload.start()
        stack.callback(reload.stop)
        checks = {"credentials": reload.missing, "inbox": group_commit.trouble, "draining": reload.draining}
        webhook = Webhook(
            credentials=reload.credentials,
            submit=group_commit.submit,
            fields=config.fields,
            limits=Limits(
                body_bytes=config.max_body_bytes,
                read_timeout=config.read_timeout,
                accept_timeout=config.accept_timeout,
            ),
            instruments=instruments,
            keyed_hasher=reload.keyed_hasher,
            nonce=_nonces(),
            rate_limited_log=reload.rate_limited_log,
        )
        admin = AdminServer(create_admin(checks, MetricsPage(registry, refresh)), admin_listener)
        admin.start()
        stack.callback(admin.stop)
        yield create_app(
            webhook,
            path=config.path,
            health_path=config.health_path,
            checks=checks,
            instruments=instruments,
            rate_limited_log=reload.rate_limited_log,
        )


def _nonces() -> Callable[[], str]:
    start, numbers = secrets.token_hex(8), itertools.count()
    return lambda: f"{start}-{next(numbers)}"
