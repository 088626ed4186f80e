"""Measure the memory for many large jobs of one token, and the delay of another: ``python -m benchmarks.jobs_load``.

The server is a separate process, in front of an empty directory. One token sends jobs with messages of one MiB that
name missing files. So the replies are as long. Then some clients of this token request the states of these jobs all
the time, while the other token requests the state of one small job.
"""

from __future__ import annotations

import argparse
import http.client
import json
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

from benchmarks.listing_memory import serving

MIB = 1024**2
JOBS = 60
POLLERS = 8
# The number of requests of the other token.
REQUESTS = 40
# The bound of the additional memory, in MiB.
MOST = 60
# The bound of the delay, in seconds.
LONGEST = 0.2
TOKENS = ("token-of-the-one-who-sends-large-jobs", "token-of-the-one-who-sends-a-small-job")


class Client:
    """A client that sends messages with one token over one connection."""

    def __init__(self, port: int, token: str) -> None:
        self._connection = http.client.HTTPConnection("127.0.0.1", port, timeout=120)
        self._headers = {"Authorization": f"Bearer {token}"}

    def ask(self, action: str, **meta: Any) -> bytes:
        message = json.dumps({"action": action, "meta": meta})
        self._connection.request("POST", "/api/v1/cmd", message, self._headers)
        answer = self._connection.getresponse()
        content = answer.read()
        if answer.status >= 300:
            raise RuntimeError(f"{answer.status} {content[:300]!r}")
        return content

    def begin(self, **meta: Any) -> str:
        return str(json.loads(self.ask("objPut", **{"async": True}, **meta))["job"])

    def finish(self, job: str) -> None:
        while json.loads(self.ask("jobStatus", job=job, wait=30))["state"] in ("queued", "running"):
            pass

    def poll(self, jobs: list[str], is_over: threading.Event) -> None:
        while True:
            self.ask("jobList", limit=len(jobs))
            for job in jobs:
                if is_over.is_set():
                    return
                self.ask("jobStatus", job=job)


def _large(number: int, length: int) -> list[str]:
    """Return names of missing files, each of *length* characters. Together, they take one MiB in a message."""
    return [f"{number:03}/{each:0{length - 4}}" for each in range(MIB // (length + 4) - 10)]


def _delays(port: int, jobs: list[str], pollers: int) -> list[float]:
    """Return the seconds of each request of the other token while *pollers* clients request the states of *jobs*."""
    other, is_over = Client(port, TOKENS[1]), threading.Event()
    job = other.begin(fileList=["missing"])
    other.finish(job)
    threads = [
        threading.Thread(target=Client(port, TOKENS[0]).poll, args=(jobs, is_over)) for _ in range(pollers)
    ]
    for thread in threads:
        thread.start()
    delays = []
    try:
        for _ in range(REQUESTS):
            time.sleep(0.05)
            started = time.perf_counter()
            other.ask("jobStatus", job=job)
            delays.append(time.perf_counter() - started)
    finally:
        is_over.set()
        for thread in threads:
            thread.join()
    return sorted(delays)


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.jobs_load", description=__doc__)
    parser.add_argument("--jobs", type=int, default=JOBS, help="default %(default)s")
    parser.add_argument("--pollers", type=int, default=POLLERS, help="default %(default)s")
    parser.add_argument("--length", type=int, default=100, help="characters of a name (default %(default)s)")
    parser.add_argument("--in-memory", action="store_true", help="without --stateDir")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="pfbench-") as name:
        directory = Path(name)
        (directory / "tokens").write_text("".join(f"{token}\n" for token in TOKENS))
        (directory / "tokens").chmod(0o600)
        flags = ["--type", "filesystem", "--storeBase", "store", "--forever"]
        flags += ["--enableTokenAuth", "--tokenPath", "tokens", "--fsRoot", "."]
        flags += [] if options.in_memory else ["--stateDir", "state"]
        with serving(flags, directory) as server:
            client = Client(server.port, TOKENS[0])
            client.finish(client.begin(fileList=["missing"]))
            base = server.peak_bytes
            jobs = [client.begin(fileList=_large(number, options.length)) for number in range(options.jobs)]
            for job in jobs:
                client.finish(job)
            over = (server.peak_bytes - base) / MIB
            client.ask("jobList", limit=len(jobs))
            listed = (server.peak_bytes - base) / MIB
            print(
                f"{options.jobs} jobs: {over:.0f} MiB over the base, {listed:.0f} MiB with jobList (at most {MOST})",
                flush=True,
            )
            delays = _delays(server.port, jobs, options.pollers)
            polled = (server.peak_bytes - base) / MIB
    shown = " ".join(f"{seconds * 1000:.0f}" for seconds in (delays[len(delays) // 2], delays[-1]))
    print(
        f"{options.pollers} pollers: jobStatus of another takes {shown} ms (median, longest;"
        f" at most {LONGEST * 1000:.0f})"
    )
    print(f"{polled:.0f} MiB over the base after that")
    return 0 if polled <= MOST and delays[-1] <= LONGEST else 1


if __name__ == "__main__":
    sys.exit(main())
