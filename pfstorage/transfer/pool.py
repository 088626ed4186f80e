"""A pool of worker threads whose number follows an `AdaptiveConcurrency`."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any, Generic, TypeVar

from pfstorage.transfer.concurrency import AdaptiveConcurrency

T = TypeVar("T")


class WorkerPool:
    """A pool that runs tasks in the order of their submission, as many at once as *concurrency* allows.

    A task may divide its work into subtasks, which come before other tasks. The pool starts a thread when a task
    needs it. The threads are daemons. Any thread may call a method.
    """

    def __init__(self, concurrency: AdaptiveConcurrency) -> None:
        self._concurrency = concurrency
        self._changed = threading.Condition()
        self._tasks: deque[Callable[[], object]] = deque()
        self._subtasks: deque[Callable[[], object]] = deque()
        self._threads: list[threading.Thread] = []
        self._idle = 0
        self._busy = 0
        self._closed = False

    def submit(self, task: Callable[[], object]) -> None:
        """Run *task* later. It must not raise. Raise `RuntimeError` if the system can't start a first thread."""
        with self._changed:
            self._tasks.append(task)
            try:
                self._wake()
            except RuntimeError:  # no thread will run it
                self._tasks.pop()
                raise

    def run(self, task: Callable[[], object]) -> None:
        """Run *task* in this thread, unless the pool is closed. It must not raise."""
        with self._changed:
            if self._closed:
                return
            self._busy += 1
        try:
            task()
        finally:
            with self._changed:
                self._busy -= 1

    def share(self, tasks: Sequence[Callable[[], T]]) -> list[T]:
        """Run subtasks in this thread and in all free workers. Return their results in the order of *tasks*.

        If a subtask raises, raise the first error after the running subtasks have ended, and start no further one. A
        task calls this, and takes part: so it does not wait for a free worker.
        """
        group = _SubtaskGroup(tasks)
        with self._changed:
            self._subtasks.extend([group.run_one] * (len(tasks) - 1))
            self._wake()
        while group.run_one():
            pass
        return group.results()

    def _wake(self) -> None:
        """Let one more task start, if the concurrency allows. The worker that takes it calls this again.

        The caller holds the lock. If no worker is idle and no thread is started, a worker is about to look for a task.
        """
        if not (self._subtasks or self._tasks) or self._busy >= self._concurrency.allowed:
            return
        if self._idle:
            self._changed.notify()
        elif len(self._threads) < self._concurrency.allowed:
            thread = threading.Thread(target=self._work, name="transfer", daemon=True)
            try:
                thread.start()
            except RuntimeError:  # the system allows no more threads: use the existing ones
                if not self._threads:
                    raise
            else:
                self._threads.append(thread)

    def _work(self) -> None:
        while (task := self._next()) is not None:
            try:
                task()
            finally:
                with self._changed:
                    self._busy -= 1

    def _next(self) -> Callable[[], object] | None:
        """Wait for a task that the concurrency allows, and return it. Return None after `close`."""
        with self._changed:
            while not self._closed:
                if (self._subtasks or self._tasks) and self._busy < self._concurrency.allowed:
                    self._busy += 1
                    task = (self._subtasks or self._tasks).popleft()
                    self._wake()
                    return task
                self._idle += 1
                self._changed.wait()
                self._idle -= 1
        return None

    @property
    def busy(self) -> int:
        """The number of running tasks."""
        return self._busy

    def cancel(self) -> None:
        """Drop the tasks that have not started."""
        with self._changed:
            self._tasks.clear()

    def close(self, seconds: float = float("inf")) -> bool:
        """Start no more tasks, and wait up to *seconds* for the running ones. Return whether all threads have ended."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()
        deadline = time.monotonic() + seconds
        for thread in self._threads:
            thread.join(max(0.0, min(deadline - time.monotonic(), threading.TIMEOUT_MAX)))
        return not any(thread.is_alive() for thread in self._threads)


class _SubtaskGroup(Generic[T]):
    """The subtasks of one task, and their results. Any thread may call `run_one`."""

    def __init__(self, tasks: Sequence[Callable[[], T]]) -> None:
        self._waiting = deque(enumerate(tasks))
        self._results: dict[int, T] = {}
        self._running = 0
        self._error: BaseException | None = None
        self._changed = threading.Condition()

    def run_one(self) -> bool:
        """Run one subtask. Return False if none is left."""
        with self._changed:
            if not self._waiting:
                return False
            number, task = self._waiting.popleft()
            self._running += 1
        result: Any = None
        error: BaseException | None = None
        try:
            result = task()
        except BaseException as e:  # noqa: BLE001 - `results` raises it
            error = e
        with self._changed:
            self._running -= 1
            self._results[number] = result
            if error:
                self._error = self._error or error
                self._waiting.clear()
            self._changed.notify_all()
        return True

    def results(self) -> list[T]:
        """Wait for all subtasks, and return their results in order. Raise the first error."""
        with self._changed:
            while self._running or self._waiting:
                self._changed.wait()
        if self._error:
            raise self._error
        return [self._results[number] for number in sorted(self._results)]
