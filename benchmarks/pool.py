"""Download by a bare pool of HTTP clients: ``python pool.py PORT TOKEN THREADS``.

Each line of stdin is a path on the server, a tab, and the name of a file. The program downloads each path to its file,
and compares the MD5 with the ETag. This is the maximum speed of Python's `http.client`. The program imports only the
standard library, so that it starts fast.
"""

from __future__ import annotations

import hashlib
import http.client
import sys
import threading
from collections import deque
from pathlib import Path

BUFFER = 1024**2


def work(port: int, token: str, jobs: deque[str], failed: list[str]) -> None:
    """Process *jobs* until none is left. Append each line that fails to *failed*."""
    connection = http.client.HTTPConnection("127.0.0.1", port)
    buffer = memoryview(bytearray(BUFFER))
    while True:
        try:
            job = jobs.popleft()
        except IndexError:
            break
        path, _, target = job.partition("\t")
        if not get(connection, path, {"X-Auth-Token": token}, target, buffer):
            failed.append(job)
    connection.close()


def get(
    connection: http.client.HTTPConnection,
    path: str,
    headers: dict[str, str],
    target: str,
    buffer: memoryview,
) -> bool:
    """Download *path* to the file *target*, and return whether it has the MD5 that the server reports."""
    connection.request("GET", path, headers=headers)
    answer = connection.getresponse()
    digest = hashlib.md5()
    with open(target, "wb", buffering=0) as file:
        while size := answer.readinto(buffer):
            digest.update(buffer[:size])
            file.write(buffer[:size])
    return answer.status == 200 and answer.headers["ETag"] == digest.hexdigest()


def main() -> int:
    port, token, threads = int(sys.argv[1]), sys.argv[2], int(sys.argv[3])
    jobs = deque(sys.stdin.read().splitlines())
    for directory in {Path(job.partition("\t")[2]).parent for job in jobs}:
        directory.mkdir(parents=True, exist_ok=True)
    failed: list[str] = []
    pool = [threading.Thread(target=work, args=(port, token, jobs, failed)) for _ in range(threads)]
    for thread in pool:
        thread.start()
    for thread in pool:
        thread.join()
    print("\n".join(failed), end="", file=sys.stderr)
    return bool(failed)


if __name__ == "__main__":
    sys.exit(main())
