"""``/metrics``: what the server has done, for Prometheus, by its own library."""

from __future__ import annotations

import itertools
import logging
import threading
from bisect import bisect_left
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, Counter, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.registry import Collector

from pfstorage.actions import ACTIONS
from pfstorage.backends.retry import RETRIES_MADE
from pfstorage.errors import ForbiddenError, PfstorageError
from pfstorage.server.exchange import Answer, Request
from pfstorage.server.load import Gauge
from pfstorage.wire.reply import Reply
from pfstorage.wire.status import http_status

log = logging.getLogger(__name__)

BUCKETS = (0.001, 0.005, 0.01, 0.05, 0.1, 0.5, 1.0, 5.0, 10.0, 60.0, 300.0, 3600.0)
"""Seconds: from a hello to a pull of an hour."""

_TO_STORE = {"objPut", "objPush"}


class Metrics:
    """Counters of one server. *gauges*, by their names, are asked when somebody looks."""

    def __init__(self, gauges: Mapping[str, Gauge]) -> None:
        self._registry = made = CollectorRegistry()
        self._requests = _Requests()
        made.register(self._requests)
        self._bytes = Counter(
            "pfstorage_moved_bytes", "Bytes of objects that were moved.", ["to"], registry=made
        )
        self._objects = Counter("pfstorage_moved_objects", "Objects that were moved.", ["to"], registry=made)
        self._failed = Counter(
            "pfstorage_failed_objects", "Objects that could not be moved.", ["to"], registry=made
        )
        made.register(_Present(gauges))

    def observe(self, name: str, reply: Reply, seconds: float) -> None:
        """Count a message with the action *name*, and what its transfer has moved."""
        action = name if name in ACTIONS else "other"  # or anybody could make as many series as they like
        self.count(action, http_status(reply), seconds)
        if "bytes" in reply.body and "skipped" in reply.body and "dryRun" not in reply.body:
            to = "store" if action in _TO_STORE else "files"
            count = reply.body.get("files", len(reply.body.get("objectFileList", ())))
            self.moved(to, reply.body["bytes"], max(0, count - reply.body["skipped"]))
            if failed := reply.body.get("failedCount", len(reply.body.get("failed", ()))):
                self._failed.labels(to).inc(failed)

    def count(self, action: str, status: int, seconds: float) -> None:
        """Count a request; *action* is one of few."""
        self._requests.count(action, int(status), seconds)

    def moved(self, to: str, size: int, objects: int = 1) -> None:
        """Count *objects* with *size* bytes that were moved to the ``store`` or to ``files``."""
        self._bytes.labels(to).inc(size)
        self._objects.labels(to).inc(objects)

    def __call__(self, request: Request) -> Answer:
        """Answer in Prometheus' text form. Raise `ForbiddenError` for who sees a part of the store alone."""
        if request.principal.permissions.prefix:
            raise ForbiddenError("the numbers are of the whole store: a token for a prefix does not see them")
        return Answer(200, generate_latest(self._registry), CONTENT_TYPE_LATEST)


@dataclass
class _Seconds:
    """What the requests with one action took: how many fell into each bucket, and all together."""

    counts: list[int] = field(default_factory=lambda: [0] * (len(BUCKETS) + 1))
    total: float = 0.0


class _Requests(Collector):
    """The requests that were answered.

    Each answer waits for this, so it is one lock and three additions: a Counter and a
    Histogram of the library take three locks and five times as long.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._counts: dict[tuple[str, int], int] = {}
        self._seconds: dict[str, _Seconds] = {}

    def count(self, action: str, status: int, seconds: float) -> None:
        with self._lock:
            self._counts[action, status] = self._counts.get((action, status), 0) + 1
            taken = self._seconds.get(action)
            if taken is None:
                taken = self._seconds[action] = _Seconds()
            taken.counts[bisect_left(BUCKETS, seconds)] += 1
            taken.total += seconds

    def collect(self) -> Iterator[Metric]:
        requests = CounterMetricFamily(
            "pfstorage_messages", "Messages and other requests.", labels=["action", "status"]
        )
        seconds = HistogramMetricFamily("pfstorage_message_seconds", "What they took.", labels=["action"])
        with self._lock:
            for (action, status), count in self._counts.items():
                requests.add_metric([action, str(status)], count)
            for action, taken in self._seconds.items():
                bounds = [*map(str, BUCKETS), "+Inf"]
                buckets = list(zip(bounds, itertools.accumulate(taken.counts), strict=True))
                seconds.add_metric([action], buckets, taken.total)
        yield requests
        yield seconds


class _Present(Collector):
    """What is the case when somebody looks."""

    def __init__(self, gauges: Mapping[str, Gauge]) -> None:
        self._gauges = gauges

    def collect(self) -> Iterator[Metric]:
        for name, (text, label, numbers) in self._gauges.items():
            family = GaugeMetricFamily(f"pfstorage_{name}", text, labels=[label] if label else [])
            try:
                for value, number in numbers().items():
                    family.add_metric([value] if label else [], number)
            except PfstorageError as e:
                log.warning("what is in /metrics lacks %s: %s", name, e)  # the others count all the more
            else:
                yield family
        repeated = "What was tried again, since the store failed."
        yield CounterMetricFamily("pfstorage_retries", repeated, value=RETRIES_MADE.value)
