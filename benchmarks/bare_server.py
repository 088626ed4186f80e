"""Run Python's own HTTP server, as a measure for others: ``python bare_server.py PORT SIZE``.

It answers each request with the same JSON of SIZE bytes, as in the manual of `http.server`, with two changes.
It sets TCP_NODELAY: otherwise its second packet waits for the acknowledgement of the first, and it answers 23
requests a second. Its queue holds more than 5 new connections.
"""

from __future__ import annotations

import json
import sys
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

EMPTY = json.dumps({"status": True, "filler": ""})


class Handler(BaseHTTPRequestHandler):
    """A handler that answers each request with `content`."""

    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    content = b""

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["Content-Length"]))
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(self.content)))
        self.end_headers()
        self.wfile.write(self.content)


class Server(ThreadingHTTPServer):
    request_queue_size = 128


def main() -> None:
    port, size = int(sys.argv[1]), int(sys.argv[2])
    filler = "x" * max(0, size - len(EMPTY))
    Handler.content = json.dumps({"status": True, "filler": filler}).encode()
    Server(("127.0.0.1", port), Handler).serve_forever()


if __name__ == "__main__":
    main()
