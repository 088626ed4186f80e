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
    """An entry of the registry: the function *run* answers the action *name*, given a *meta*.

    *text* says what it does, for the document of the server.
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
    """Register a function as the answer to the action *name*, its meta read as a *meta*.

    It raises a `PfstorageError` for what fails, and never builds the reply to an
    error itself. *read_only* ones change nothing, and are offered to a GET. *text* says what it
    does: a docstring would be gone with ``python -OO``.
    """

    def register(run: Callable[[ActionContext, M], Reply]) -> Callable[[ActionContext, M], Reply]:
        ACTIONS[name] = Action(name, meta, run, read_only, text)
        return run

    return register


def find_action(name: str) -> Action:
    """Return the action *name*. Raise `UnknownActionError`, which lists those that there are."""
    try:
        return ACTIONS[name]
    except KeyError:
        known = ", ".join(sorted(ACTIONS))
        raise UnknownActionError(
            f"there is no action {name[:80]!r}; there are {known}", action=name[:80]
        ) from None
