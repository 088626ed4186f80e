"""Wake the threads that wait for changes of a job."""

from __future__ import annotations

import threading
from collections.abc import Callable

# The number of conditions that all jobs share. A change of one job seldom wakes a thread that waits for another.
_CONDITIONS = 64


class JobNotifier:
    """A notifier of the threads that wait for a change of a job. Any thread may call a method."""

    def __init__(self) -> None:
        self._conditions = [threading.Condition() for _ in range(_CONDITIONS)]

    def wait_for(self, job_id: str, is_due: Callable[[], bool], seconds: float) -> None:
        """Return as soon as *is_due* returns true, or after *seconds*. It is called after each change of the job."""
        with (condition := self._condition(job_id)):
            condition.wait_for(is_due, seconds)

    def notify(self, job_id: str) -> None:
        """Wake the threads that wait for the job."""
        notify_all(self._condition(job_id))

    def notify_all(self) -> None:
        """Wake all threads."""
        for condition in self._conditions:
            notify_all(condition)

    def _condition(self, job_id: str) -> threading.Condition:
        return self._conditions[hash(job_id) % len(self._conditions)]


def notify_all(condition: threading.Condition) -> None:
    with condition:
        condition.notify_all()
