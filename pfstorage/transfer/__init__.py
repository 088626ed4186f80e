"""Many files between a storage and the disk, several at a time.

A *plan* is a stream of transfers; `push`, `pull` and `verify` work it off and return a report.
"""

from pfstorage.transfer.context import Options, Work
from pfstorage.transfer.existence import heads_of
from pfstorage.transfer.plan import Failure, Moved, Plan, Progress, Transfer, TransferReport, sum_of
from pfstorage.transfer.pull import pull, pull_named
from pfstorage.transfer.push import push
from pfstorage.transfer.rate import PacedSink, PacedSource, SharedWorkers, Throttle
from pfstorage.transfer.verify import verify

__all__ = [
    "Failure",
    "Moved",
    "Options",
    "PacedSink",
    "PacedSource",
    "Plan",
    "Progress",
    "SharedWorkers",
    "Throttle",
    "Transfer",
    "TransferReport",
    "Work",
    "heads_of",
    "pull",
    "pull_named",
    "push",
    "sum_of",
    "verify",
]
