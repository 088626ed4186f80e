"""The actions. Each is a function with a dataclass for its meta."""

from pfstorage.actions import jobs, listing, pull, push, service, sweep, verify
from pfstorage.actions.context import ActionContext, RequestContext, Upload
from pfstorage.actions.registry import ACTIONS, Action, action, find_action

__all__ = [
    "ACTIONS",
    "Action",
    "ActionContext",
    "RequestContext",
    "Upload",
    "action",
    "find_action",
    "jobs",
    "listing",
    "pull",
    "push",
    "service",
    "sweep",
    "verify",
]
