"""A real Kafka, of three brokers, that the program of TEST_KAFKA starts and ends.

`up N` starts N brokers and prints their addresses with commas between, `pid N` prints the process id of a broker,
counted from 1, `down` ends them all.
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
    """Find it."""
    named = os.environ.get("TEST_KAFKA", "")
    return named if named and Path(named).exists() else None


class Kafka:
    """The brokers, each of which may be stopped or killed."""

    def __enter__(self) -> Self:
        self.up()
        return self

    def __exit__(self, *_: object) -> None:
        for process in self.processes.values():
            with suppress(psutil.NoSuchProcess):
                process.kill()
        self._do("down")

    def up(self) -> None:
        """Start all of them, empty."""
        self.servers = self._do("up", str(BROKERS))
        self.processes = {broker: psutil.Process(int(self._do("pid", str(broker)))) for broker in range(1, BROKERS + 1)}
        self.commands = {broker: process.cmdline() for broker, process in self.processes.items()}
        self.admin = AdminClient({"bootstrap.servers": self.servers, "log_level": 0})

    def new_topic(self, partitions: int = 3, replicas: int = BROKERS, **config: str) -> str:
        """Make a topic of its own for a test; give its URL."""
        name = f"test-{secrets.token_hex(4)}-{next(_numbers)}"
        wanted = SAFE | {key.replace("_", "."): value for key, value in config.items()}
        self.admin.create_topics([NewTopic(name, partitions, replicas, config=wanted)])[name].result(30)
        for server in self.servers.split(","):  # each hears of it in its own time
            until(lambda server=server: self._has(server, name, partitions), f"{server} does not hear of the topic")
        return f"kafka://{self.servers}/{name}"

    def _has(self, server: str, name: str, partitions: int) -> bool:
        """Ask this very broker: a client that knows the others may ask any of them."""
        client = AdminClient({"bootstrap.servers": server, "log_level": 0})
        topic = client.list_topics(timeout=10).topics.get(name)
        found = topic.partitions.values() if topic else []
        return len(found) == partitions and all(each.leader > 0 for each in found)

    def configure(self, url: str, **config: str) -> None:
        """Change settings of a topic."""
        resource = ConfigResource(ConfigResource.Type.TOPIC, url.rpartition("/")[2])
        for key, value in config.items():
            entry = ConfigEntry(key.replace("_", "."), value, incremental_operation=AlterConfigOpType.SET)
            resource.add_incremental_config(entry)
        for future in self.admin.incremental_alter_configs([resource]).values():
            future.result(30)

    def delete(self, url: str) -> None:
        """Drop a topic."""
        name = url.rpartition("/")[2]
        with suppress(KafkaException):
            self.admin.delete_topics([name])[name].result(30)

    def again(self) -> None:
        """Have all of them run, with what they had, and wait until every partition is in sync."""
        for broker, process in self.processes.items():
            with suppress(psutil.NoSuchProcess):
                process.send_signal(signal.SIGCONT)
            if not process.is_running() or process.status() == psutil.STATUS_ZOMBIE:
                nowhere = {"stdin": subprocess.DEVNULL, "stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
                started = subprocess.Popen(self.commands[broker], start_new_session=True, **nowhere)
                self.processes[broker] = psutil.Process(started.pid)
        until(self.is_whole, "the brokers do not find together", patience=90)

    def is_whole(self) -> bool:
        """Say whether all replicas are in sync."""
        try:
            found = self.admin.list_topics(timeout=5)
        except KafkaException:
            return False
        partitions = [each for topic in found.topics.values() for each in topic.partitions.values()]
        return len(found.brokers) == BROKERS and all(len(each.isrs) == len(each.replicas) for each in partitions)

    def leaders(self, url: str) -> set[int]:
        """Say which brokers lead a partition of the topic; -1 where none does."""
        topic = self.admin.list_topics(timeout=5).topics[url.rpartition("/")[2]]
        return {each.leader for each in topic.partitions.values()}

    def signal(self, broker: int, number: int) -> None:
        """Send a signal to one of them."""
        self.processes[broker].send_signal(number)

    def kill(self, broker: int) -> None:
        """End one of them with -9."""
        self.signal(broker, signal.SIGKILL)
        self.processes[broker].wait(10)

    @staticmethod
    def _do(*words: str) -> str:
        path = program()
        assert path
        done = subprocess.run(
            [path, *words], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, check=True, timeout=120
        )
        return done.stdout.strip()
