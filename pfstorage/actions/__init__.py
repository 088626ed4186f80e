"""What each action does: a dataclass for its meta and a function, beside others of its kind."""

from pfstorage.actions import jobs, listing, service
from pfstorage.actions import pull as pulling
from pfstorage.actions import push as pushing
from pfstorage.actions import sweep as sweeping
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
    "pulling",
    "pushing",
    "service",
    "sweeping",
]
