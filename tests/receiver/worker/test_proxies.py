"""The corpus through real proxies, which forward it over connections that clients share."""

import re
import subprocess
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from http.client import HTTPConnection
from pathlib import Path

import pytest

from tests.receiver.worker.cases import read
from tests.receiver.worker.conversation import converse, serving
from tests.support.server import free_port, until

NGINX = """
daemon off; pid {directory}/pid; error_log {directory}/log; events {{}}
http {{
    access_log off;
    client_body_temp_path {directory}/body; proxy_temp_path {directory}/proxy; fastcgi_temp_path {directory}/fastcgi;
    uwsgi_temp_path {directory}/uwsgi; scgi_temp_path {directory}/scgi;
    upstream receiver {{ server 127.0.0.1:{upstream}; keepalive 4; }}
    server {{
        listen 127.0.0.1:{port};
        location / {{
            proxy_pass http://receiver; proxy_http_version 1.1; proxy_set_header Connection "";
            proxy_request_buffering off; proxy_set_header X-Mark $request_id;
        }}
    }}
}}
"""
HAPROXY = """
defaults
    mode http
    timeout connect 2s
    timeout client 3s
    timeout server 3s
    http-reuse always
frontend in
    bind 127.0.0.1:{port}
    http-request set-header X-Mark %[uuid()]
    default_backend receiver
backend receiver
    server one 127.0.0.1:{upstream}
"""
MARK = re.compile(r"[0-9a-f-]{32,36}")
PROXIES = {"nginx": (NGINX, ["nginx", "-c"]), "haproxy": (HAPROXY, ["haproxy", "-db", "-q", "-f"])}


@contextmanager
def proxying(upstream: int, name: str, directory: Path) -> Iterator[int]:
    """Run a proxy in front of *upstream*; yield its port."""
    text, command = PROXIES[name]
    port, file = free_port(), directory / name
    file.write_text(text.format(directory=directory, upstream=upstream, port=port))
    with subprocess.Popen([*command, str(file)], stderr=subprocess.DEVNULL) as process:
        try:
            until(lambda: _answers(port, "/up") is not None, f"{name} does not listen")
            yield port
        finally:
            process.terminate()


def _answers(port: int, path: str) -> str | None:
    connection = HTTPConnection("127.0.0.1", port, timeout=5)
    try:
        connection.request("GET", path)
        return connection.getresponse().read().decode("latin-1")
    except OSError:
        return None
    finally:
        connection.close()


@pytest.mark.needs("nginx", "haproxy")
@pytest.mark.parametrize("proxy", PROXIES)
def test_no_client_gets_the_response_to_anothers_request(tmp_path: Path, proxy: str) -> None:
    """Each response has the mark of one request that the proxy forwarded, so no smuggled request was answered."""
    wrong: list[str | None] = []
    asked = 0
    finished = threading.Event()

    def ask(port: int, who: int) -> None:
        nonlocal asked
        while not finished.is_set():
            path = f"/honest-{who}-{asked}"
            asked += 1
            answer = _answers(port, path)
            if not answer or not answer.startswith(f"GET {path} HTTP/1.1 b'' id="):
                wrong.append(answer)

    with serving("ours") as upstream, proxying(upstream, proxy, tmp_path) as port:
        honest = [threading.Thread(target=ask, args=(port, who)) for who in range(4)]
        for thread in honest:
            thread.start()
        with ThreadPoolExecutor(4) as pool:
            cases = read()
            responses = list(pool.map(lambda case: converse(port, [case.raw]), cases))
        finished.set()
        for thread in honest:
            thread.join()
    assert asked > 100
    assert wrong == []
    marks: set[str] = set()
    for case, answers in zip(cases, responses, strict=True):
        for answer in answers:
            # With a method that llhttp does not know, only the request line is read, so there is no mark.
            if answer.startswith("200 ") and not answer.startswith("200 FROBNICATE"):
                mark = answer.rpartition(" id=")[2]
                assert MARK.fullmatch(mark), (case.name, answers)
                assert mark not in marks, (case.name, answers)
                marks.add(mark)
    assert len(marks) > 100
