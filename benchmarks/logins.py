"""Count the logins of the server at the store during many requests."""

from __future__ import annotations

from benchmarks.bench import Bench
from benchmarks.client import Client
from benchmarks.table import Row
from benchmarks.versions import Version

REQUESTS = 200


def measure(bench: Bench) -> list[Row]:
    old, new = (_logins(bench, version) for version in (bench.old, bench.new))
    return [
        Row(f"logins during {REQUESTS} ls by HTTP", bench.old.name, str(old), str(new), "", "1", new == 1)
    ]


def _logins(bench: Bench, version: Version) -> int:
    with bench.temporary_path("few") as source:
        source.mkdir()
        (source / "file").write_text("something to list")
        bench.send(bench.new, "objPut", putSpec=str(source), inLocation="logins", mapLocationOver=str(source))
    with bench.serving(version) as server, Client(server.port) as client:
        before = bench.store.logins()
        client.send({"action": "ls", "meta": {"path": "logins"}}, REQUESTS)
        return bench.store.logins() - before
