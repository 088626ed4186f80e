"""Processes that fork."""

from __future__ import annotations

import subprocess
import sys

from tests.support.waiting import LONG as LONG_WAIT

FORKS = """
import os, time
from pfstorage.runtime.fair_share import FAIR_SHARE
FAIR_SHARE._lock.acquire()  # another thread of the parent has it at that moment
child = os.fork()
if child == 0:
    while time.process_time() < 0.5:
        FAIR_SHARE.pause()
    os._exit(0)
print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
"""


def test_after_a_fork_the_child_computes() -> None:
    done = subprocess.run([sys.executable, "-c", FORKS], capture_output=True, text=True, timeout=LONG_WAIT)
    assert (done.stdout, done.stderr) == ("0\n", "")
