"""Clients with python-swiftclient: ``python listing_sdk.py URL TOKEN CONTAINER PREFIX FILES CLIENTS SECONDS``.

Each lists again and again, in a thread of its own, over a connection that is kept. It prints as
JSON how many listings came in how many seconds.
"""

from __future__ import annotations

import json
import sys
import threading
import time

import swiftclient


def lists(url: str, token: str, container: str, prefix: str, files: int, until: list[float]) -> int:
    """List until the time that *until* holds; return how often."""
    connection = swiftclient.http_connection(url)
    count = 0
    while time.perf_counter() < until[0]:
        _, rows = swiftclient.client.get_container(url, token, container, prefix=prefix, http_conn=connection)
        assert len(rows) == files, len(rows)
        count += 1
    connection[1].close()
    return count


def main() -> None:
    *what, files, clients, seconds = sys.argv[1:]
    counts: list[int] = []
    lists(*what, int(files), [time.perf_counter() + 0.3])  # so that all is warm
    started = time.perf_counter()
    until = [started + float(seconds)]
    threads = [
        threading.Thread(target=lambda: counts.append(lists(*what, int(files), until)))
        for _ in range(int(clients))
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(counts) == int(clients)
    print(json.dumps({"answers": sum(counts), "seconds": time.perf_counter() - started}))


if __name__ == "__main__":
    main()
