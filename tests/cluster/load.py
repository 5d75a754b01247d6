"""Runs in a pod: notifications at a steady rate, handshakes beside them; prints as JSON what was answered, and when.

Its settings are in the environment: URL, TOKEN, SECRET, RATE, HANDSHAKES, SECONDS. SIGUSR1 ends it before.
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
good: list[float] = []


def notify() -> str:
    body = catalogue.notification("message text")
    header = {signature.HEADER: signature.header_for(body, os.environ["SECRET"].encode())}
    status = http.request("POST", URL, body=body, headers=header).status
    if status == 200:
        acknowledged.append(re.findall(rb'"id":"(wamid[^"]+)"', body)[0].decode().replace("\\/", "/"))
        good.append(time.monotonic())
    return f"notification {status}"


def shake() -> str:
    challenge = secrets.token_hex(8)
    query = {"hub.mode": "subscribe", "hub.challenge": challenge, "hub.verify_token": os.environ["TOKEN"]}
    answer = http.request("GET", f"{URL}?{urlencode(query)}")
    return f"handshake {answer.status}" if answer.data == challenge.encode() else "handshake refused"


def work() -> None:
    while (what := due.get()) is not None:
        try:
            outcome = notify() if what == "notification" else shake()
        except urllib3.exceptions.HTTPError as ex:
            outcome = f"{what} {type(ex).__name__}"
        answers[outcome] += 1


over = threading.Event()
signal.signal(signal.SIGUSR1, lambda *_: over.set())
workers = [threading.Thread(target=work) for _ in range(32)]
for worker in workers:
    worker.start()
started = time.monotonic()
plan = sorted(
    (number / float(os.environ[name]), what)
    for name, what in (("RATE", "notification"), ("HANDSHAKES", "handshake"))
    for number in range(int(SECONDS * float(os.environ[name])))
)
for at, what in plan:
    if over.wait(max(started + at - time.monotonic(), 0)):
        break
    due.put(what)
for _ in workers:
    due.put(None)
for worker in workers:
    worker.join()
good.sort()
gap = max((after - before for before, after in itertools.pairwise(good)), default=SECONDS)
print(json.dumps({"answers": answers, "gap": gap, "acknowledged": acknowledged}))
