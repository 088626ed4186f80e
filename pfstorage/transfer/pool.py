"""Threads that work off tasks, a changing number of them at once."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any, Generic, TypeVar

from pfstorage.transfer.concurrency import AdaptiveConcurrency

T = TypeVar("T")


class WorkerPool:
    """Does tasks in the order in which they are submitted, as many at once as *limit* allows at the time.

    A task may share out its pieces, which go before other tasks. The threads are
    made when they are needed. They don't keep the program from ending.
    """

    def __init__(self, limit: AdaptiveConcurrency) -> None:
        self._concurrency = limit
        self._changed = threading.Condition()
        self._tasks: deque[Callable[[], object]] = deque()
        self._subtasks: deque[Callable[[], object]] = deque()
        self._threads: list[threading.Thread] = []
        self._idle = 0
        self._busy = 0
        self._closed = False

    def submit(self, task: Callable[[], object]) -> None:
        """Have *task* done. It must not raise. Raise `RuntimeError` if the system gives not even one thread."""
        with self._changed:
            self._tasks.append(task)
            try:
                self._wake()
            except RuntimeError:  # there is no thread at all to do it
                self._tasks.pop()
                raise

    def share(self, tasks: Sequence[Callable[[], T]]) -> list[T]:
        """Do *tasks*, with whoever is free; return what they return, in order.

        If one raises, those that have not begun are left out, and its error is raised.
        Called by a task, which itself does what nobody else is free for.
        """
        group = _TaskGroup(tasks)
        with self._changed:
            self._subtasks.extend([group.do_one] * (len(tasks) - 1))
            self._wake()
        while group.do_one():
            pass
        return group.results()

    def _wake(self) -> None:
        """Let one more task begin, if the limit allows; whoever takes it lets the next one begin.

        Called with the lock held. Where nobody is idle and no thread is made, one is about to look for a task.
        """
        if not (self._subtasks or self._tasks) or self._busy >= self._concurrency.allowed:
            return
        if self._idle:
            self._changed.notify()
        elif len(self._threads) < self._concurrency.allowed:
            thread = threading.Thread(target=self._work, name="transfer", daemon=True)
            try:
                thread.start()
            except RuntimeError:  # the system gives no more of them: those that there are do it
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
        """Return a task once there is one and the limit allows it; None is the end."""
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
        """How many tasks are being done."""
        return self._busy

    def cancel(self) -> None:
        """Forget the tasks that have not begun."""
        with self._changed:
            self._tasks.clear()

    def close(self, seconds: float = float("inf")) -> bool:
        """Begin nothing more; wait up to *seconds* for what runs. Tell whether all has ended."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()
        deadline = time.monotonic() + seconds
        for thread in self._threads:
            thread.join(max(0.0, min(deadline - time.monotonic(), threading.TIMEOUT_MAX)))
        return not any(thread.is_alive() for thread in self._threads)


class _TaskGroup(Generic[T]):
    """Tasks that belong together, and their results."""

    def __init__(self, tasks: Sequence[Callable[[], T]]) -> None:
        self._waiting = deque(enumerate(tasks))
        self._results: dict[int, T] = {}
        self._running = 0
        self._error: BaseException | None = None
        self._changed = threading.Condition()

    def do_one(self) -> bool:
        """Do one task; tell whether there was one left."""
        with self._changed:
            if not self._waiting:
                return False
            number, task = self._waiting.popleft()
            self._running += 1
        result: Any = None
        error: BaseException | None = None
        try:
            result = task()
        except BaseException as e:  # noqa: BLE001 - it is raised again by whoever shared the tasks out
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
        with self._changed:
            while self._running or self._waiting:
                self._changed.wait()
        if self._error:
            raise self._error
        return [self._results[number] for number in sorted(self._results)]
