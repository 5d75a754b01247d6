"""A real Kafka with three brokers, which the program in TEST_KAFKA starts and stops.

`up N` starts N brokers and prints their addresses, separated by commas. `pid N` prints the process id of a broker,
counted from 1. `down` stops them all.
"""

import itertools
import os
import secrets
import signal
import subprocess
from contextlib import suppress
from pathlib import Path
from typing import Self

import psutil
from confluent_kafka import KafkaException
from confluent_kafka.admin import AdminClient, AlterConfigOpType, ConfigEntry, ConfigResource, NewTopic

from tests.support.server import until

BROKERS = 3
SAFE = {"min.insync.replicas": "2"}
_numbers = itertools.count()


def program() -> str | None:
    """Return the path of the program, or None."""
    path = os.environ.get("TEST_KAFKA", "")
    return path if path and Path(path).exists() else None


class Kafka:
    """The brokers, each of which can be stopped or killed."""

    def __enter__(self) -> Self:
        self.up()
        return self

    def __exit__(self, *_: object) -> None:
        for process in self.processes.values():
            with suppress(psutil.NoSuchProcess):
                process.kill()
        self._run("down")

    def up(self) -> None:
        """Start all brokers, without data."""
        self.servers = self._run("up", str(BROKERS))
        pids = {broker: int(self._run("pid", str(broker))) for broker in range(1, BROKERS + 1)}
        self.processes = {broker: psutil.Process(pid) for broker, pid in pids.items()}
        self.commands = {broker: process.cmdline() for broker, process in self.processes.items()}
        self.admin = AdminClient({"bootstrap.servers": self.servers, "log_level": 0})

    def new_topic(self, partitions: int = 3, replicas: int = BROKERS, **config: str) -> str:
        """Create a topic for one test; return its URL."""
        name = f"test-{secrets.token_hex(4)}-{next(_numbers)}"
        settings = SAFE | {key.replace("_", "."): value for key, value in config.items()}
        self.admin.create_topics([NewTopic(name, partitions, replicas, config=settings)])[name].result(30)
        for server in self.servers.split(","):  # each learns of it at its own time
            until(lambda server=server: self._has(server, name, partitions), f"{server} does not know the topic")
        return f"kafka://{self.servers}/{name}"

    def _has(self, server: str, name: str, partitions: int) -> bool:
        """Return whether this broker knows the topic; with a new client, because one that knows all may ask any."""
        client = AdminClient({"bootstrap.servers": server, "log_level": 0})
        topic = client.list_topics(timeout=10).topics.get(name)
        known = topic.partitions.values() if topic else []
        return len(known) == partitions and all(each.leader > 0 for each in known)

    def configure(self, url: str, **config: str) -> None:
        """Change settings of a topic."""
        resource = ConfigResource(ConfigResource.Type.TOPIC, url.rpartition("/")[2])
        for key, value in config.items():
            entry = ConfigEntry(key.replace("_", "."), value, incremental_operation=AlterConfigOpType.SET)
            resource.add_incremental_config(entry)
        for future in self.admin.incremental_alter_configs([resource]).values():
            future.result(30)

    def delete(self, url: str) -> None:
        """Delete a topic."""
        name = url.rpartition("/")[2]
        with suppress(KafkaException):
            self.admin.delete_topics([name])[name].result(30)

    def restore(self) -> None:
        """Resume or restart all brokers with their data, and wait until every partition is in sync."""
        for broker, process in self.processes.items():
            with suppress(psutil.NoSuchProcess):
                process.send_signal(signal.SIGCONT)
            if not process.is_running() or process.status() == psutil.STATUS_ZOMBIE:
                null = {"stdin": subprocess.DEVNULL, "stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
                started = subprocess.Popen(self.commands[broker], start_new_session=True, **null)
                self.processes[broker] = psutil.Process(started.pid)
        until(self.is_in_sync, "the replicas do not get in sync", patience=90)

    def is_in_sync(self) -> bool:
        """Return whether all brokers run and all replicas are in sync."""
        try:
            metadata = self.admin.list_topics(timeout=5)
        except KafkaException:
            return False
        partitions = [each for topic in metadata.topics.values() for each in topic.partitions.values()]
        return len(metadata.brokers) == BROKERS and all(len(each.isrs) == len(each.replicas) for each in partitions)

    def leaders(self, url: str) -> set[int]:
        """Return the brokers that lead a partition of the topic; -1 for a partition without a leader."""
        topic = self.admin.list_topics(timeout=5).topics[url.rpartition("/")[2]]
        return {each.leader for each in topic.partitions.values()}

    def signal(self, broker: int, number: int) -> None:
        """Send a signal to a broker."""
        self.processes[broker].send_signal(number)

    def kill(self, broker: int) -> None:
        """Kill a broker with SIGKILL."""
        self.signal(broker, signal.SIGKILL)
        self.processes[broker].wait(10)

    @staticmethod
    def _run(*arguments: str) -> str:
        path = program()
        assert path
        done = subprocess.run(
            [path, *arguments], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, check=True, timeout=120
        )
        return done.stdout.strip()
