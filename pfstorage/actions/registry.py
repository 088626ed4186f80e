"""The registry of actions."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeVar

from pfstorage.actions.context import ActionContext
from pfstorage.errors import UnknownActionError
from pfstorage.wire.reply import Reply

M = TypeVar("M")


@dataclass(frozen=True)
class Action:
    """An action: its *name*, the dataclass of its *meta*, and the function *run* that performs it.

    A *read_only* action changes nothing. *text* describes the action in the OpenAPI document.
    """

    name: str
    meta: type[Any]
    run: Callable[[ActionContext, Any], Reply]
    read_only: bool
    text: str = ""


ACTIONS: dict[str, Action] = {}


def action(
    name: str, *, meta: type[M], read_only: bool = False, text: str = ""
) -> Callable[[Callable[[ActionContext, M], Reply]], Callable[[ActionContext, M], Reply]]:
    """Register a function that performs the action *name*. It gets its meta as an instance of *meta*.

    The function raises a `PfstorageError` if it fails, and never returns an error reply. A *read_only* action changes
    nothing, and clients may send it by GET. *text* describes the action. It is no docstring, because ``python -OO``
    removes docstrings.
    """

    def register(run: Callable[[ActionContext, M], Reply]) -> Callable[[ActionContext, M], Reply]:
        ACTIONS[name] = Action(name, meta, run, read_only, text)
        return run

    return register


def find_action(name: str) -> Action:
    """Return the action *name*. Raise `UnknownActionError`, whose text lists all actions."""
    try:
        return ACTIONS[name]
    except KeyError:
        known = ", ".join(sorted(ACTIONS))
        raise UnknownActionError(
            f"there is no action {name[:80]!r}; there are {known}", action=name[:80]
        ) from None
