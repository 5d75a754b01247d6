"""Runs in a pod: sends notifications and handshakes at a steady rate; prints the answers as JSON.

Its settings are in the environment: URL, TOKEN, SECRET, RATE, HANDSHAKES, SECONDS. SIGUSR1 stops it early.
"""

import itertools
import json
import os
import queue
import re
import secrets
import signal
import threading
import time
from collections import Counter
from urllib.parse import urlencode

import urllib3

from service import signature
from service.meta import catalogue

URL, SECONDS = os.environ["URL"], float(os.environ["SECONDS"])
http = urllib3.PoolManager(retries=False, timeout=5, maxsize=32)
due: "queue.SimpleQueue[str | None]" = queue.SimpleQueue()
answers: Counter[str] = Counter()
acknowledged: list[str] = []
unanswered: list[str] = []  # sent on a connection that was closed before any byte of a response
accepted_at: list[float] = []


def notify() -> str:
    body = catalogue.notification("message text")
    header = {signature.HEADER: signature.header_for(body, os.environ["SECRET"].encode())}
    message = re.findall(rb'"id":"(wamid[^"]+)"', body)[0].decode().replace("\\/", "/")
    try:
        status = http.request("POST", URL, body=body, headers=header).status
    except urllib3.exceptions.ProtocolError:
        unanswered.append(message)
        raise
    if status == 200:
        acknowledged.append(message)
        accepted_at.append(time.monotonic())
    return f"notification {status}"


def verify() -> str:
    challenge = secrets.token_hex(8)
    query = {"hub.mode": "subscribe", "hub.challenge": challenge, "hub.verify_token": os.environ["TOKEN"]}
    answer = http.request("GET", f"{URL}?{urlencode(query)}")
    return f"handshake {answer.status}" if answer.data == challenge.encode() else "handshake refused"


def work() -> None:
    while (kind := due.get()) is not None:
        try:
            outcome = notify() if kind == "notification" else verify()
        except urllib3.exceptions.HTTPError as ex:
            outcome = f"{kind} {type(ex).__name__}"
        answers[outcome] += 1


stopping = threading.Event()
signal.signal(signal.SIGUSR1, lambda *_: stopping.set())
workers = [threading.Thread(target=work) for _ in range(32)]
for worker in workers:
    worker.start()
started = time.monotonic()
schedule = sorted(
    (number / float(os.environ[name]), kind)
    for name, kind in (("RATE", "notification"), ("HANDSHAKES", "handshake"))
    for number in range(int(SECONDS * float(os.environ[name])))
)
for at, kind in schedule:
    if stopping.wait(max(started + at - time.monotonic(), 0)):
        break
    due.put(kind)
for _ in workers:
    due.put(None)
for worker in workers:
    worker.join()
accepted_at.sort()
gap = max((after - before for before, after in itertools.pairwise(accepted_at)), default=SECONDS)
print(json.dumps({"answers": answers, "gap": gap, "acknowledged": acknowledged, "unanswered": unanswered}))
