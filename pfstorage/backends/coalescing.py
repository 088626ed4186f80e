"""The same question, asked of a store by several at once, is asked once for all of them."""

from __future__ import annotations

import threading
from collections.abc import Callable, Hashable
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Generic, TypeVar

from pfstorage.errors import StoppedError

T = TypeVar("T")

AT_ONCE = 2
"""How often the same is asked at the same time, before those who come wait for one another."""
LONGEST_WAIT = 1.0
"""Seconds after which those who wait ask all the same: what was asked before may never be answered."""


@dataclass(eq=False)
class _SharedRequest(Generic[T]):
    """Those who wait: the first of them asks, when it *may_begin*, and all have the *answer*."""

    may_begin: threading.Event = field(default_factory=threading.Event)
    answer: Future[T] = field(default_factory=Future)


@dataclass(eq=False)
class _Question(Generic[T]):
    """How often it is being asked, and those who wait to ask it next."""

    under_way: int = 0
    next: _SharedRequest[T] | None = None


class RequestCoalescer(Generic[T]):
    """Answers of a store that nobody changes. Safe in many threads.

    Whoever asks has an answer that was asked for after they came: it shows what they did before.
    So nobody joins a question that is under way; it is asked once for all who come
    meanwhile, when one of `AT_ONCE` has its answer.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._questions: dict[Hashable, _Question[T]] = {}

    def get(self, name: Hashable, ask: Callable[[], T]) -> T:
        """Return what *ask* returns, called here or for another who asks for the same *name*. Raise what it raises."""
        group: _SharedRequest[T] | None = None
        with self._lock:
            question = self._questions.setdefault(name, _Question())
            is_first = question.next is None
            if is_first and question.under_way < AT_ONCE:
                question.under_way += 1
            else:
                group = question.next = question.next or _SharedRequest()
        if group is None:
            try:
                return ask()
            finally:
                self._leave(name, question)
        if is_first:
            self._ask_for(group, name, question, ask)
        try:
            return group.answer.result()
        except StoppedError:
            if is_first:
                raise
            return ask()  # nobody waits any more for whoever asked for all

    def _ask_for(
        self, group: _SharedRequest[T], name: Hashable, question: _Question[T], ask: Callable[[], T]
    ) -> None:
        """Set the answer of *group*. Whatever happens, it has one: the others wait for nothing else."""
        try:
            try:
                group.may_begin.wait(LONGEST_WAIT)
            finally:
                with self._lock:
                    question.next = None  # who comes from now on is too late for this answer
                    question.under_way += 1
            group.answer.set_result(ask())
        except BaseException as e:  # noqa: BLE001 - it is raised for each of the group
            group.answer.set_exception(e)
        finally:
            self._leave(name, question)

    def _leave(self, name: Hashable, question: _Question[T]) -> None:
        with self._lock:
            question.under_way -= 1
            if question.next:
                question.next.may_begin.set()
            elif not question.under_way:
                del self._questions[name]
