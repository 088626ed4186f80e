"""Measure the maximum speed of this client: a pull from a server that needs almost no time itself."""

from __future__ import annotations

import sys
from pathlib import Path
from urllib.parse import urlsplit

from benchmarks import pool
from benchmarks.bench import Bench
from benchmarks.measurement import Measurement
from benchmarks.moving import pulling
from benchmarks.nginx import serving
from benchmarks.peers import RCLONE_DEFAULT, SWIFT, Call, NotInstalledError, Peer, Task, pfstorage
from benchmarks.table import Row
from benchmarks.trees import Tree
from benchmarks.versions import new_version

FILES = 1000
SIZE = 512 * 1024
LOCATION = "fast"
THREADS = 8
# The smallest allowed share of the throughput of a bare pool with as many threads.
THROUGHPUT = 0.85


def _install_pool(cache: Path) -> list[str]:
    return [new_version(cache).python, pool.__file__]


def _pull_by_pool(task: Task) -> Call:
    urls = {name: task.site.object_url(f"{task.location}/{name}") for name in task.names}
    lines = [f"{urlsplit(url).path}\t{task.tree / name}\n" for name, url in urls.items()]
    return Call((str(task.site.port), task.site.token, str(THREADS)), stdin="".join(lines))


OURS_THREADS = pfstorage("ours", new_version, "--workers", str(THREADS))
POOL = Peer("http.client", _install_pool, pull=_pull_by_pool)
BOUNDS = {POOL: 1 / THROUGHPUT, SWIFT: 0.6, RCLONE_DEFAULT: 1.0}


def measure(bench: Bench) -> list[Row]:
    work = f"pull {FILES} x {SIZE // 1024} KiB from nginx"
    with bench.temporary_path("series") as directory, bench.temporary_path("nginx") as home:
        # files without directories, because the static listing has only one level
        tree = Tree.create(directory, [f"{number:04}.dcm" for number in range(FILES)], SIZE)
        try:
            with serving(home, tree, LOCATION) as site:
                measure_peer = pulling(bench, site, tree, LOCATION)
                return Measurement.run(bench, work, BOUNDS, measure_peer, OURS_THREADS).wall(BOUNDS)
        except NotInstalledError as e:
            print(f"\n  left out: {e}", file=sys.stderr)
            return []
