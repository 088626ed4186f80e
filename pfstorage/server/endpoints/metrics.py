"""``/metrics``: count requests and transfers, and report them to Prometheus."""

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
from pfstorage.server.exchange import Request
from pfstorage.server.http1.sending import Response
from pfstorage.server.load import Gauge
from pfstorage.wire.reply import Reply
from pfstorage.wire.status import http_status

log = logging.getLogger(__name__)

# upper bounds in seconds, from a hello to a pull of an hour
BUCKETS = (0.001, 0.005, 0.01, 0.05, 0.1, 0.5, 1.0, 5.0, 10.0, 60.0, 300.0, 3600.0)

_TO_STORE = {"objPut", "objPush"}


class Metrics:
    """Counters of one server. The functions of *gauges* are called for each report. Thread-safe."""

    def __init__(self, gauges: Mapping[str, Gauge]) -> None:
        self._registry = registry = CollectorRegistry()
        self._requests = _RequestsCollector()
        registry.register(self._requests)
        self._bytes = Counter(
            "pfstorage_moved_bytes", "Bytes of objects that were moved.", ["to"], registry=registry
        )
        self._objects = Counter(
            "pfstorage_moved_objects", "Objects that were moved.", ["to"], registry=registry
        )
        self._failed = Counter(
            "pfstorage_failed_objects", "Objects that could not be moved.", ["to"], registry=registry
        )
        registry.register(_Gauges(gauges))

    def observe(self, name: str, reply: Reply, seconds: float) -> None:
        """Count a message with the action *name*, and the objects and bytes that its transfer has moved."""
        action = name if name in ACTIONS else "other"  # otherwise, clients could create any number of series
        self.count(action, http_status(reply), seconds)
        if "bytes" in reply.body and "skipped" in reply.body and "dryRun" not in reply.body:
            to = "store" if action in _TO_STORE else "files"
            count = reply.body.get("files", len(reply.body.get("objectFileList", ())))
            self.moved(to, reply.body["bytes"], max(0, count - reply.body["skipped"]))
            if failed := reply.body.get("failedCount", len(reply.body.get("failed", ()))):
                self._failed.labels(to).inc(failed)

    def count(self, action: str, status: int, seconds: float) -> None:
        """Count a request that took *seconds*. *action* must come from a small set."""
        self._requests.count(action, int(status), seconds)

    def moved(self, to: str, size: int, objects: int = 1) -> None:
        """Count *objects* with *size* bytes that were moved to the ``store`` or to ``files``."""
        self._bytes.labels(to).inc(size)
        self._objects.labels(to).inc(objects)

    def __call__(self, request: Request) -> Response:
        """Return the report in Prometheus' text format. Raise `ForbiddenError` for a token with a prefix."""
        if request.principal.permissions.prefix:
            raise ForbiddenError("the metrics cover the whole store: use a token without a prefix")
        return Response(200, generate_latest(self._registry), CONTENT_TYPE_LATEST)


@dataclass
class _Durations:
    """The durations of the requests with one action: the count in each bucket, and the sum in seconds."""

    counts: list[int] = field(default_factory=lambda: [0] * (len(BUCKETS) + 1))
    total: float = 0.0


class _RequestsCollector(Collector):
    """The counts of the answered requests.

    Each response waits for the count, so it takes one lock and three additions. A Counter and a Histogram of the
    library take three locks and five times as long.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._counts: dict[tuple[str, int], int] = {}
        self._durations: dict[str, _Durations] = {}

    def count(self, action: str, status: int, seconds: float) -> None:
        with self._lock:
            self._counts[action, status] = self._counts.get((action, status), 0) + 1
            durations = self._durations.get(action)
            if durations is None:
                durations = self._durations[action] = _Durations()
            durations.counts[bisect_left(BUCKETS, seconds)] += 1
            durations.total += seconds

    def collect(self) -> Iterator[Metric]:
        requests = CounterMetricFamily(
            "pfstorage_messages", "Messages and other requests.", labels=["action", "status"]
        )
        seconds = HistogramMetricFamily(
            "pfstorage_message_seconds", "Seconds from a request to its reply.", labels=["action"]
        )
        with self._lock:
            for (action, status), count in self._counts.items():
                requests.add_metric([action, str(status)], count)
            for action, durations in self._durations.items():
                bounds = [*map(str, BUCKETS), "+Inf"]
                buckets = list(zip(bounds, itertools.accumulate(durations.counts), strict=True))
                seconds.add_metric([action], buckets, durations.total)
        yield requests
        yield seconds


class _Gauges(Collector):
    """Current values, such as the number of open connections."""

    def __init__(self, gauges: Mapping[str, Gauge]) -> None:
        self._gauges = gauges

    def collect(self) -> Iterator[Metric]:
        for name, (text, label, numbers) in self._gauges.items():
            family = GaugeMetricFamily(f"pfstorage_{name}", text, labels=[label] if label else [])
            try:
                for value, number in numbers().items():
                    family.add_metric([value] if label else [], number)
            except PfstorageError as e:
                log.warning("the metric %s is missing in /metrics: %s", name, e)
            else:
                yield family
        text = "Calls of the store that were retried after a failure."
        yield CounterMetricFamily("pfstorage_retries", text, value=RETRIES_MADE.value)
