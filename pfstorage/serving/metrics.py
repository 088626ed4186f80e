"""``/metrics``: what the server has done, for Prometheus, by its own library."""

from __future__ import annotations

import functools
from collections.abc import Iterator, Mapping

from prometheus_client import (
    CONTENT_TYPE_LATEST,
    CollectorRegistry,
    Counter,
    Histogram,
    generate_latest,
)
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from pfstorage.actions import ACTIONS
from pfstorage.backends.retry import REPEATED
from pfstorage.errors import ForbiddenError
from pfstorage.reply import Reply
from pfstorage.serving.exchange import Answer, Request
from pfstorage.serving.load import Gauge
from pfstorage.status import http_status

BUCKETS = (0.001, 0.005, 0.01, 0.05, 0.1, 0.5, 1.0, 5.0, 10.0, 60.0, 300.0, 3600.0)
"""Seconds: from a hello to a pull of an hour."""

_TO_STORE = {"objPut", "objPush"}


class Metrics:
    """Counters of one server. *gauges*, by their names, are asked when somebody looks."""

    def __init__(self, gauges: Mapping[str, Gauge]) -> None:
        self._registry = made = CollectorRegistry()
        self._requests = Counter(
            "pfstorage_messages", "Messages and other requests.", ["action", "status"], registry=made
        )
        self._seconds = Histogram(
            "pfstorage_message_seconds", "What they took.", ["action"], buckets=BUCKETS, registry=made
        )
        self._bytes = Counter(
            "pfstorage_moved_bytes", "Bytes of objects that were moved.", ["to"], registry=made
        )
        self._objects = Counter("pfstorage_moved_objects", "Objects that were moved.", ["to"], registry=made)
        made.register(_Present(gauges))
        # to look them up by their labels takes three times as long
        self._series = functools.cache(self._new_series)

    def observe(self, name: str, reply: Reply, seconds: float) -> None:
        """Count a message with the action *name*, and what its transfer has moved."""
        action = name if name in ACTIONS else "other"  # or anybody could make as many series as they like
        self.count(action, http_status(reply), seconds)
        if "bytes" in reply.body and "skipped" in reply.body and "dryRun" not in reply.body:
            to = "store" if action in _TO_STORE else "files"
            count = reply.body.get("files", len(reply.body.get("objectFileList", ())))
            self.moved(to, reply.body["bytes"], max(0, count - reply.body["skipped"]))

    def count(self, action: str, status: int, seconds: float) -> None:
        """Count a request; *action* is one of few."""
        counter, histogram = self._series(action, int(status))
        counter.inc()
        histogram.observe(seconds)

    def _new_series(self, action: str, status: int) -> tuple[Counter, Histogram]:
        return self._requests.labels(action, str(status)), self._seconds.labels(action)

    def moved(self, to: str, size: int, objects: int = 1) -> None:
        """Count *objects* with *size* bytes that were moved to the ``store`` or to ``files``."""
        self._bytes.labels(to).inc(size)
        self._objects.labels(to).inc(objects)

    def __call__(self, request: Request) -> Answer:
        """Answer in Prometheus' text form. Raise `ForbiddenError` for who sees a part of the store alone."""
        if request.caller.rights.prefix:
            raise ForbiddenError("the numbers are of the whole store: a token for a prefix does not see them")
        return Answer(200, generate_latest(self._registry), CONTENT_TYPE_LATEST)


class _Present(Collector):
    """What is the case when somebody looks."""

    def __init__(self, gauges: Mapping[str, Gauge]) -> None:
        self._gauges = gauges

    def collect(self) -> Iterator[Metric]:
        for name, (text, label, numbers) in self._gauges.items():
            family = GaugeMetricFamily(f"pfstorage_{name}", text, labels=[label] if label else [])
            for value, number in numbers().items():
                family.add_metric([value] if label else [], number)
            yield family
        repeated = "What was tried again, since the store failed."
        yield CounterMetricFamily("pfstorage_retries", repeated, value=REPEATED.value)
