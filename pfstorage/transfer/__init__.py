"""Transfer many files between a storage and the disk, several at once.

A *plan* is an iterable of `Transfer`. `push`, `pull` and `verify` run a plan and return a `TransferReport`.
"""

from pfstorage.transfer.concurrency import WorkerBudget
from pfstorage.transfer.context import Options, TransferContext
from pfstorage.transfer.existence import head_all
from pfstorage.transfer.plan import Failure, Plan, Progress, Transfer, TransferReport, TransferResult, sum_of
from pfstorage.transfer.pull import pull, pull_named
from pfstorage.transfer.push import push
from pfstorage.transfer.rate import PacedSink, PacedSource, RateLimiter
from pfstorage.transfer.verify import verify

__all__ = [
    "Failure",
    "Options",
    "PacedSink",
    "PacedSource",
    "Plan",
    "Progress",
    "RateLimiter",
    "Transfer",
    "TransferContext",
    "TransferReport",
    "TransferResult",
    "WorkerBudget",
    "head_all",
    "pull",
    "pull_named",
    "push",
    "sum_of",
    "verify",
]
