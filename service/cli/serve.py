"""`serve`: the receiver."""

import os
import sys
from typing import Final

import click

from service import __version__
from service.cli.bind_listener import listen
from service.cli.load_config import configured
from service.config import Config
from service.errors import ConfigurationError
from service.foreign_environment import Ignored
from service.receiver import run_directory
from service.receiver.server import BACKLOG, Server
from service.storage import delivery_stores
from service.storage.protocols import Terms
from service.storage.url_reload import Source
from service.telemetry import logs

_WEAK: Final = {"memory": "the inbox keeps nothing over a restart, as WEBHOOK_INBOX says"}
_UNCHECKED: Final = "a 200 may be lost with the server: WEBHOOK_INBOX says that its settings are not looked at"


@click.command()
@click.pass_obj
def serve(ignored: Ignored) -> None:
    """Receive notifications until told to stop (SIGTERM, or Ctrl-C).

    Starts without credentials and without an inbox that works, and says in /readyz of the admin listener what it
    waits for. Ends with 2 where the configuration is wrong: `whatsapp-webhook check` says the same without starting.
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
    listener = listen("WEBHOOK_BIND", config.bind, backlog=BACKLOG)
    _announce(config)
    hold = delivery_stores.hold(config.inbox)
    terms = Terms(
        retention=int(config.retention * 1000),
        body_retention=int(config.body_retention * 1000),
        timeout=config.accept_timeout,
        hold=hold,
    )
    Server(
        config,
        os.environ,
        listener=listener,
        admin_listener=admin_listener,
        inbox=Source(config.inbox, terms),
        relay_seen=hold.refresh,
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
        log.warning("weak durability", detail=_WEAK.get(config.inbox.engine, _UNCHECKED))
