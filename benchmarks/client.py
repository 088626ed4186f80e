"""An HTTP client that sends one message after the other."""

from __future__ import annotations

import http.client
import json
import time


class Client:
    """A client that keeps its connection if the server does, and otherwise makes a new one for each message."""

    def __init__(self, port: int) -> None:
        self._connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)

    def __enter__(self) -> Client:
        return self

    def __exit__(self, *_: object) -> None:
        self._connection.close()

    def send(self, message: object, count: int) -> float:
        """Send *message* *count* times. Return the seconds until the last reply."""
        body = json.dumps(message)
        started = time.perf_counter()
        for _ in range(count):
            self._connection.request("POST", "/api/v1/cmd", body, {"Content-Type": "application/json"})
            reply = self._connection.getresponse().read()
        seconds = time.perf_counter() - started
        # 2.0.0.2 repeats a header of HTTP in the body, before the JSON
        if b'"status": true' not in reply:
            raise RuntimeError(f"the reply is {reply[:500]!r}")
        return seconds
