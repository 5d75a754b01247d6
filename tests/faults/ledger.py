"""A ledger: which messages were sent, and which of them were answered 200."""

import http.client
import json
import secrets
import time
from collections import Counter

from service import signature
from tests.support.server import Server
from tests.support.traffic import Senders


class Ledger(Senders):
    """Sends messages with unique ids on several connections, and records which were answered 200."""

    def __init__(self, server: Server, *, connections: int = 8, size: int = 1, pause: float = 0.0) -> None:
        """Each connection waits *pause* seconds after an answer; each notification has *size* messages."""
        self._server = server
        self._size = size
        self._pause = pause
        self.sent: set[str] = set()
        self.acknowledged: set[str] = set()
        self.answers: Counter[int] = Counter()  # by status; 0 if there was no response
        self.slowest_seconds = 0.0
        super().__init__(connections)

    def wait_for(self, acknowledged: int, timeout: float = 20) -> None:
        """Wait until so many were answered 200."""
        deadline = time.monotonic() + timeout
        while len(self.acknowledged) < acknowledged:
            assert time.monotonic() < deadline, f"only {len(self.acknowledged)} acknowledged"
            time.sleep(0.005)

    def _run(self) -> None:
        connection = http.client.HTTPConnection("127.0.0.1", self._server.port, timeout=10)
        while not self._stopping.is_set():
            ids = [f"wamid.{secrets.token_hex(16)}" for _ in range(self._size)]
            messages = [{"from": "16505551234", "id": each, "type": "text"} for each in ids]
            value = {"metadata": {"phone_number_id": "106"}, "messages": messages}
            body = json.dumps(
                {
                    "object": "whatsapp_business_account",
                    "entry": [{"id": "102", "changes": [{"field": "messages", "value": value}]}],
                }
            ).encode()
            self.sent.update(ids)
            header = {signature.HEADER: signature.header_for(body, self._server.secret.encode())}
            started = time.monotonic()
            status = 0
            try:
                connection.request("POST", "/webhooks", body, header)
                answer = connection.getresponse()
                answer.read()
                status = answer.status
            except (OSError, http.client.HTTPException):
                connection.close()
            self.slowest_seconds = max(self.slowest_seconds, time.monotonic() - started)
            self.answers[status] += 1
            if status == 200:
                self.acknowledged.update(ids)
                time.sleep(self._pause)
            else:
                time.sleep(0.01)
        connection.close()


def kept_ids(server: Server) -> set[str]:
    """Return the ids of the stored messages."""
    return {event.id.split(":")[1] for event in server.kept()}
