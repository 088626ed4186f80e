"""Add many rows to a listing: ``python -m benchmarks.rows DIRECTORY COUNT``.

The program writes them into the database of the only container of a development Swift, whose files are in DIRECTORY,
as `swift.container.backend.ContainerBroker` merges the rows of another replica: a PUT for each of a million objects
would take an hour. The rows have no objects.
"""

from __future__ import annotations

import itertools
import sys
from collections.abc import Iterator
from pathlib import Path

BATCH = 10_000


def key(number: int) -> str:
    """Return the key of image *number*, a thousand in each study. The keys are in the order of the numbers.

    >>> key(1234)
    'study0001/0001234.dcm'
    """
    return f"study{number // 1000:04}/{number:07}.dcm"


def merge(directory: Path, count: int) -> None:
    from swift.common.utils import Timestamp
    from swift.container.backend import ContainerBroker

    (database,) = directory.glob("devices/*/containers/*/*/*/*.db")
    broker = ContainerBroker(str(database))
    items = _items(count, Timestamp.now().internal)
    while batch := list(itertools.islice(items, BATCH)):
        broker.merge_items(batch)


def _items(count: int, created_at: str) -> Iterator[dict[str, object]]:
    for number in range(count):
        yield {
            "name": key(number),
            "created_at": created_at,
            "size": 128 * 1024,
            "content_type": "application/dicom",
            "etag": f"{number:032x}",
            "deleted": 0,
        }


if __name__ == "__main__":
    merge(Path(sys.argv[1]), int(sys.argv[2]))
