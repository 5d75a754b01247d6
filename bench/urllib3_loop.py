"""The baseline for the relay: a plain urllib3 loop in several threads; see `make bench`.

usage: urllib3_loop.py PORT THREADS COUNT
"""

import sys
import threading

import urllib3


def main(port: int, threads: int, count: int) -> None:
    """POST 500 bytes *count* times, from *threads* threads."""
    pool = urllib3.HTTPConnectionPool("127.0.0.1", port, maxsize=threads, retries=False)
    body = b"x" * 500

    def loop() -> None:
        for _ in range(count // threads):
            pool.urlopen("POST", "/hook", body=body, headers={"Content-Type": "application/json"})

    running = [threading.Thread(target=loop) for _ in range(threads)]
    for thread in running:
        thread.start()
    for thread in running:
        thread.join()


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
