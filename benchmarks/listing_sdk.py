"""List by python-swiftclient: ``python listing_sdk.py URL TOKEN CONTAINER FILES CLIENTS SECONDS PREFIX...``.

Each client is a thread that lists one of the prefixes again and again over a kept connection. The program prints the
number of listings and the seconds as JSON.
"""

from __future__ import annotations

import itertools
import json
import sys
import threading
import time

import swiftclient


def lists(prefix: str, url: str, token: str, container: str, files: int, until: list[float]) -> int:
    """List *prefix* again and again until the time in *until*. Return the number of listings."""
    connection = swiftclient.http_connection(url)
    count = 0
    while time.perf_counter() < until[0]:
        _, rows = swiftclient.client.get_container(url, token, container, prefix=prefix, http_conn=connection)
        assert len(rows) == files, len(rows)
        count += 1
    connection[1].close()
    return count


def main() -> None:
    url, token, container, files, clients, seconds, *prefixes = sys.argv[1:]
    what = (url, token, container, int(files))
    counts: list[int] = []
    lists(prefixes[0], *what, [time.perf_counter() + 0.3])  # a warm-up
    started = time.perf_counter()
    until = [started + float(seconds)]
    threads = [
        threading.Thread(target=lambda prefix=prefix: counts.append(lists(prefix, *what, until)))
        for prefix in itertools.islice(itertools.cycle(prefixes), int(clients))
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(counts) == int(clients)
    print(json.dumps({"answers": sum(counts), "seconds": time.perf_counter() - started}))


if __name__ == "__main__":
    main()
