"""``/metrics``: what the server has done, for Prometheus, by its own library."""

from __future__ import annotations

from collections.abc import Callable

from prometheus_client import (
    CONTENT_TYPE_LATEST,
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    generate_latest,
)

from pfstorage.actions import ACTIONS
from pfstorage.reply import Reply
from pfstorage.serving.exchange import Answer, Request
from pfstorage.status import http_status

BUCKETS = (0.001, 0.005, 0.01, 0.05, 0.1, 0.5, 1.0, 5.0, 10.0, 60.0, 300.0, 3600.0)
"""Seconds: from a hello to a pull of an hour."""

_TO_STORE = {"objPut", "objPush"}


class Metrics:
    """Counters of one server. *gauges* are numbers that are asked for when somebody looks, by name."""

    def __init__(self, gauges: dict[str, tuple[str, Callable[[], float]]]) -> None:
        self._registry = made = CollectorRegistry()
        self._requests = Counter(
            "pfstorage_messages", "Messages that were answered.", ["action", "status"], registry=made
        )
        self._seconds = Histogram(
            "pfstorage_message_seconds", "What messages took.", ["action"], buckets=BUCKETS, registry=made
        )
        self._bytes = Counter(
            "pfstorage_moved_bytes", "Bytes of objects that were moved.", ["to"], registry=made
        )
        self._objects = Counter("pfstorage_moved_objects", "Objects that were moved.", ["to"], registry=made)
        for name, (text, value) in gauges.items():
            Gauge(f"pfstorage_{name}", text, registry=made).set_function(value)

    def observe(self, name: str, reply: Reply, seconds: float) -> None:
        """Count a message with the action *name*, and what its transfer has moved."""
        action = name if name in ACTIONS else "other"  # or anybody could make as many series as they like
        self._requests.labels(action, str(int(http_status(reply)))).inc()
        self._seconds.labels(action).observe(seconds)
        if "bytes" in reply.body and "skipped" in reply.body and "dryRun" not in reply.body:
            to = "store" if action in _TO_STORE else "files"
            count = reply.body.get("files", len(reply.body.get("objectFileList", ())))
            self._bytes.labels(to).inc(reply.body["bytes"])
            self._objects.labels(to).inc(max(0, count - reply.body["skipped"]))

    def __call__(self, _: Request) -> Answer:
        """Answer in Prometheus' text form."""
        return Answer(200, generate_latest(self._registry), CONTENT_TYPE_LATEST)
