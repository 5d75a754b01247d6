"""Closed-loop and open-loop load over keep-alive connections; run as a separate process.

usage: load.py PORT SECRET CONNECTIONS COUNT [RATE]; prints a JSON object: seconds, answers, latencies in ms.
Each notification has 500 bytes and a unique id. All are created and signed before the clock starts.
"""

import hmac
import json
import secrets
import selectors
import socket
import sys
import time
from collections import Counter

SIZE_BYTES = 500


def requests(secret: bytes, count: int) -> list[bytes]:
    """Return *count* requests, ready to send."""
    signed = []
    now = str(int(time.time()))
    for _ in range(count):
        message = {
            "from": "16505551234",
            "id": f"wamid.HBgLMTY1MDU1NTEyMzQVAgASGBQ{secrets.token_hex(14)}",
            "timestamp": now,
            "type": "text",
            "text": {"body": ""},
        }
        value = {
            "messaging_product": "whatsapp",
            "metadata": {"display_phone_number": "15550783881", "phone_number_id": "106540352242922"},
            "contacts": [{"profile": {"name": "Ada"}, "wa_id": "16505551234"}],
            "messages": [message],
        }
        notification = {
            "object": "whatsapp_business_account",
            "entry": [{"id": "102290129340398", "changes": [{"value": value, "field": "messages"}]}],
        }
        size_without_text = len(json.dumps(notification, separators=(",", ":")))
        message["text"]["body"] = "x" * (SIZE_BYTES - size_without_text)  # type: ignore[index]
        body = json.dumps(notification, separators=(",", ":")).encode()
        signed.append(request(secret, body))
    return signed


def request(secret: bytes, body: bytes) -> bytes:
    """Return one signed request."""
    signature = hmac.digest(secret, body, "sha256").hex()
    head = (
        "POST /webhooks HTTP/1.1\r\nHost: 127.0.0.1\r\nUser-Agent: facebookexternalua\r\nAccept: */*\r\n"
        f"Content-Type: application/json\r\nX-Hub-Signature-256: sha256={signature}\r\n"
        f"Content-Length: {len(body)}\r\n\r\n"
    )
    return head.encode() + body


def run(port: int, signed: list[bytes], connections: int, rate: float | None) -> dict[str, object]:
    """Send all requests, at *rate* per second (open loop) or as fast as the responses arrive (closed loop)."""
    selector = selectors.DefaultSelector()
    for _ in range(connections):
        client = socket.create_connection(("127.0.0.1", port))
        client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        selector.register(client, selectors.EVENT_READ, [0.0])
    free = [key.fileobj for key in selector.get_map().values()]
    answers: Counter[str] = Counter()
    latencies: list[float] = []
    started = time.perf_counter()
    sent = 0
    while len(latencies) < len(signed):
        while free and sent < len(signed):
            due = started + sent / rate if rate else time.perf_counter()
            if due > time.perf_counter():
                break
            client = free.pop()
            selector.get_key(client).data[0] = due
            client.sendall(signed[sent])  # type: ignore[union-attr]
            sent += 1
        timeout = (
            None if not rate or not free or sent == len(signed) else max(started + sent / rate - time.perf_counter(), 0)
        )
        for key, _ in selector.select(timeout):
            data = key.fileobj.recv(65536)  # type: ignore[union-attr]
            answers[data[9:12].decode() or "closed"] += 1
            latencies.append((time.perf_counter() - key.data[0]) * 1000)
            free.append(key.fileobj)
    return {"seconds": time.perf_counter() - started, "answers": answers, "latencies": sorted(latencies)}


if __name__ == "__main__":
    prepared = requests(sys.argv[2].encode(), int(sys.argv[4]))
    json.dump(
        run(int(sys.argv[1]), prepared, int(sys.argv[3]), float(sys.argv[5]) if len(sys.argv) > 5 else None), sys.stdout
    )
