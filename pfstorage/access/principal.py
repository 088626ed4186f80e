"""The sender of a message: identity and permissions."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from pfstorage.access.permissions import Permissions

_ALL = Permissions()


@dataclass(eq=False)  # not frozen: the server makes one for each request, and a frozen one takes far longer
class Principal:
    """The identity and the permissions of the sender of a message. Do not modify an instance."""

    permissions: Permissions = _ALL
    # the name of the token; "" if the server has no tokens
    owner: str = ""
    # may change settings and end the server
    is_trusted: bool = True
    # sends messages over HTTP, and may only change settings that lead to no other store
    is_remote: bool = False
    # the server takes messages from anyone in the network
    is_anonymous: bool = False
    # may only send actions that change nothing
    is_read_only: bool = False
    # evaluates the token again, or raises `UnauthorizedError`
    renew: Callable[[], Principal] | None = None

    def renewed(self) -> Principal:
        """Return the principal with its present permissions. Raise `UnauthorizedError` if its token was revoked."""
        return self.renew() if self.renew else self
