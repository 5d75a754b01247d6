"""The gunicorn application: settings, hooks and the master process."""

import math
import resource
import socket
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from functools import partialmethod
from pathlib import Path
from typing import Any, Final

from gunicorn.app.base import BaseApplication
from gunicorn.arbiter import Arbiter
from gunicorn.glogging import Logger

from service import __version__
from service.config import Config
from service.receiver import drain_mark, run_directory
from service.receiver.lifecycle import running
from service.receiver.worker import Worker
from service.storage.url_reload import InboxSource
from service.telemetry import logs, metrics
from service.telemetry.tracing import Wsgi

LISTEN_BACKLOG: Final = 2048  # connections that the kernel queues until they are accepted
STOP_MARGIN_SECONDS: Final = 3.0  # added to the maximum duration of a request
SPARE_FILES: Final = 64  # files that are not connections: the inbox, the log, the admin listener


class Server(BaseApplication):
    """The gunicorn application: one master process, and workers that serve."""

    def __init__(
        self,
        config: Config,
        environ: Mapping[str, str],
        *,
        listener: socket.socket,
        admin_listener: socket.socket,
        inbox: InboxSource,
        relay_seen: Callable[[int], int | None] = lambda _: None,
    ) -> None:
        """*listener* and *admin_listener* are bound and listening: all workers accept from them.

        *relay_seen* gets the current time and returns a relay's last heartbeat, both in milliseconds since the epoch.
        """
        self.config = config
        self._listener = listener
        self._environ = environ
        self._admin_listener = admin_listener
        self._inbox = inbox
        self._relay_seen = relay_seen
        self._parts = ExitStack()
        self._slot = 0
        super().__init__()

    def run(self) -> None:
        """Serve until stopped by a signal."""
        Master(self).run()

    def load_config(self) -> None:
        """Set gunicorn's settings."""
        for name, value in self._settings().items():
            self.cfg.set(name, value)

    def load(self) -> Wsgi:
        """Start the parts of a worker; gunicorn calls this after the fork."""
        return self._parts.enter_context(
            running(
                self.config,
                self._environ,
                version=__version__,
                measured=self._measured(),
                admin_listener=self._admin_listener,
                inbox=self._inbox,
                relay_seen=self._relay_seen,
            )
        )

    def _settings(self) -> dict[str, Any]:
        config = self.config
        return {
            "bind": f"fd://{self._listener.detach()}",  # gunicorn closes it
            "workers": config.workers,
            "worker_class": Worker,
            "worker_connections": _connections(config.connections),
            "worker_tmp_dir": str(run_directory.own(config.run_dir)),
            "keepalive": math.ceil(config.keepalive_timeout),
            "timeout": 30,
            "graceful_timeout": int(config.read_timeout + config.accept_timeout + STOP_MARGIN_SECONDS),
            "backlog": LISTEN_BACKLOG,
            # Proxy headers are never trusted.
            "forwarded_allow_ips": "",
            "forwarder_headers": "",
            "secure_scheme_headers": {},
            "control_socket_disable": True,
            "accesslog": None,
            "loglevel": "info",
            "logger_class": QuietLogger,
            "proc_name": "whatsapp-webhook",
            "on_starting": self._on_starting,
            "pre_fork": self._pre_fork,
            "post_fork": self._post_fork,
            "child_exit": self._child_exit,
            "worker_exit": self._worker_exit,
        }

    def _on_starting(self, _arbiter: Arbiter) -> None:
        _, hard_limit = resource.getrlimit(resource.RLIMIT_NOFILE)
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard_limit, hard_limit))
        if (connections := _connections(self.config.connections)) < self.config.connections:
            logs.get("server").warning(
                "open file limit too low",
                detail=f"the hard limit is {hard_limit}, so each worker serves at most {connections} connections: "
                f"raise it to {self.config.connections + SPARE_FILES}, or lower WEBHOOK_CONNECTIONS",
            )
        drain_mark.clear(self.config.run_dir)
        metrics.forget_files(self._metrics_dir)

    def _pre_fork(self, arbiter: Arbiter, worker: Worker) -> None:
        used = {each.slot for each in arbiter.WORKERS.values()}
        worker.slot = next(slot for slot in range(len(used) + 1) if slot not in used)

    def _post_fork(self, _arbiter: Arbiter, worker: Worker) -> None:
        self._slot = worker.slot

    def _child_exit(self, _arbiter: Arbiter, worker: Worker) -> None:
        if self.config.workers > 1:
            metrics.forget_gauges(self._metrics_dir, worker.slot)

    def _worker_exit(self, _arbiter: Arbiter, _worker: Worker) -> None:
        self._parts.close()

    @property
    def _metrics_dir(self) -> Path:
        return run_directory.own(self.config.run_dir) / "metrics"

    def _measured(self) -> metrics.Measured:
        version, inbox = __version__, self.config.inbox
        if self.config.workers == 1:
            return metrics.of_one_process(version=version, engine=inbox.engine, weak=inbox.weak)
        return metrics.of_slot(self._metrics_dir, self._slot, version=version, engine=inbox.engine, weak=inbox.weak)


def _connections(configured: int) -> int:
    """Return the maximum number of connections of a worker: the configured one, unless the limit of files is lower."""
    _, hard_limit = resource.getrlimit(resource.RLIMIT_NOFILE)
    return configured if hard_limit == resource.RLIM_INFINITY else max(min(configured, hard_limit - SPARE_FILES), 1)


class Master(Arbiter):
    """The master process: stops on TERM, INT and QUIT, and ignores signals that would change the number of workers.

    A second worker could not open a SQLite inbox, so half of the responses would be 503.
    """

    def _ignore(self, name: str) -> None:
        logs.get("server").info("signal ignored", signal=name)

    handle_hup = partialmethod(_ignore, "SIGHUP")
    handle_ttin = partialmethod(_ignore, "SIGTTIN")
    handle_ttou = partialmethod(_ignore, "SIGTTOU")
    handle_usr2 = partialmethod(_ignore, "SIGUSR2")
    handle_winch = partialmethod(_ignore, "SIGWINCH")


class QuietLogger(Logger):
    """Writes gunicorn's lines to the process's log in its format, and no access log."""

    def setup(self, cfg: object) -> None:
        """Propagate lines to the root logger, whatever gunicorn's settings are."""
        self.cfg = cfg
        self._access_log_enabled = False
        self.error_log.propagate = True
        self.error_log.handlers = []

    def access(self, *_args: object) -> None:
        """Write nothing: the query string contains the verify token."""
