"""`serve`: the receiver."""

import os
import sys

import click

from service import __version__
from service.cli.bind_listener import listen
from service.cli.load_config import configured
from service.config import Config
from service.errors import ConfigurationError
from service.foreign_environment import Ignored
from service.receiver import run_directory
from service.receiver.server import LISTEN_BACKLOG, Server
from service.storage import engines, low_watermark
from service.storage.protocols import Terms
from service.storage.url_reload import InboxSource
from service.telemetry import logs


@click.command(short_help="Receive notifications, and store every event.")
@click.pass_obj
def serve(ignored: Ignored) -> None:
    """Receive notifications until told to stop (SIGTERM, or Ctrl-C).

    Starts without credentials and without an inbox that works, and says in /readyz of the admin listener what it
    waits for. `whatsapp-webhook check` finds what is wrong with the configuration without starting.
    """
    config = configured(os.environ)
    logs.configure(level=config.log_level, form=config.log_format, stream=sys.stdout)
    if told := ignored.told():
        logs.get("server").warning("environment variables ignored", problems=told)
    if problems := ignored.problems():
        logs.get("server").error("tracing is off", problems=problems)
    try:
        run_directory.prepare(config.run_dir)
    except ConfigurationError as ex:
        raise click.ClickException(str(ex)) from ex
    admin_listener = listen("WEBHOOK_ADMIN_BIND", config.admin_bind)
    listener = listen("WEBHOOK_BIND", config.bind, backlog=LISTEN_BACKLOG)
    _announce(config)
    watermark = low_watermark.of(config.inbox, lambda: inbox.opened)
    terms = Terms(
        retention=int(config.retention * 1000),
        body_retention=int(config.body_retention * 1000),
        timeout=config.accept_timeout,
        low_watermark=watermark,
    )
    inbox = InboxSource(config.inbox, terms)
    Server(
        config,
        os.environ,
        listener=listener,
        admin_listener=admin_listener,
        inbox=inbox,
        relay_seen=watermark.refresh,
    ).run()


def _announce(config: Config) -> None:
    log = logs.get("server")
    log.info(
        "starting",
        version=__version__,
        url=f"http://{config.bind}{config.path}",
        inbox=str(config.inbox),
        fields=sorted(config.fields) or "all",
        workers=config.workers,
        connections=config.connections,
        log_level=config.log_level,
        tracing=bool(
            os.environ.get("OTEL_EXPORTER_OTLP_ENDPOINT") or os.environ.get("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT")
        ),
    )
    if config.inbox.weak:
        log.warning("weak durability", detail=engines.load(config.inbox).weak_means)
