"""What each action does: a dataclass for its meta and a function, beside others of its kind."""

from pfstorage.actions import jobs, listing, pulling, pushing, service, sweeping
from pfstorage.actions.registry import ACTIONS, Action, Caller, Context, Upload, action, find_action

__all__ = [
    "ACTIONS",
    "Action",
    "Caller",
    "Context",
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
