"""The service itself: hello, internalctl, and the command to quit."""

from __future__ import annotations

import json
import os
import socket
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from json.encoder import encode_basestring_ascii as quoted
from typing import Any

from pfstorage.actions.context import ActionContext
from pfstorage.actions.registry import action
from pfstorage.errors import ForbiddenError, MessageError, NotFoundError
from pfstorage.settings.state import nested
from pfstorage.wire.fields import ANY_LENGTH
from pfstorage.wire.json_text import INDENT
from pfstorage.wire.message import Message
from pfstorage.wire.reply import Reply

# a reply has at most this many times the length of the text that it echoes
ECHO_GROWTH = 8
# characters that are echoed however much the text grows
ECHO_ALWAYS = 32 * 1024
MAX_ECHO = 1024 * 1024
# levels of the reply around the echo
ECHO_DEPTH = 3
ECHO_CHUNK = 4096


@dataclass(frozen=True)
class HelloMeta:
    """The meta of hello."""

    ask_about: str = ""
    echo_back: object = ""


@dataclass(frozen=True)
class InternalctlMeta:
    """The meta of internalctl."""

    var: str = field(default="", metadata={"schema": ANY_LENGTH})
    get: object = None
    set: object = None
    value_replace: str | None = None


@action(
    "hello",
    meta=HelloMeta,
    read_only=True,
    text="Report name and version, and the time, the machine, or an echo.",
)
def hello(context: ActionContext, meta: HelloMeta) -> Reply:
    """Report name and version, and the time, the machine or an echo, as *meta* requests."""
    answer: dict[str, Any] = context.handler.state.identity()
    if meta.ask_about == "timestamp":
        now = datetime.now().isoformat("-", "microseconds")
        answer["timestamp"] = {"now": now.replace("-", "").replace(":", "")}
    elif meta.ask_about == "sysinfo":
        if context.principal.is_anonymous or context.principal.permissions.prefix:
            raise ForbiddenError("sysinfo describes this machine: it needs a token, and one without a prefix")
        answer["sysinfo"] = _sysinfo()
    elif meta.ask_about == "echoBack":
        _require_short(meta.echo_back)
        answer["echoBack"] = {"msg": meta.echo_back}
    return Reply({"d_ret": answer, "status": len(answer) > 2})


def _require_short(echo: object) -> None:
    """Raise `MessageError` if *echo* grows too much, because the reply indents each line of it."""
    received = sent = 0
    for one, other in _lengths(echo, ECHO_DEPTH):
        received, sent = received + one, sent + other
        if sent > max(ECHO_ALWAYS, min(ECHO_GROWTH * received, MAX_ECHO)):
            raise MessageError(
                f"meta 'echoBack' would come back as over {ECHO_GROWTH} times as much text, or over"
                f" {MAX_ECHO} characters: nest it less, or send less"
            )


def _lengths(value: object, depth: int) -> Iterator[tuple[int, int]]:
    """Yield two lengths for each part of *value*: in bytes as compact JSON, and in characters as the reply writes it.

    *depth* is the number of levels around *value*.
    """
    if isinstance(value, str):
        for start in range(0, len(value) + 1, ECHO_CHUNK):  # to escape a long text at once takes much memory
            chunk = value[start : start + ECHO_CHUNK]
            yield len(chunk.encode("utf-8", "surrogatepass")) + 2, len(quoted(chunk))
    elif isinstance(value, Mapping | list | tuple):
        indent = 1 + len(INDENT) * (depth + 1)
        yield 2, 2 + indent
        for each in value:
            yield 1, indent + 1
            yield from _lengths(each, depth + 1)
            if isinstance(value, Mapping):
                yield 1, 2
                yield from _lengths(value[each], depth + 1)
    else:
        length = len(json.dumps(value))
        yield length, length


def _sysinfo() -> dict[str, Any]:
    import platform  # the imports take long, and only sysinfo needs them

    import psutil

    return {
        "system": platform.system(),
        "machine": platform.machine(),
        "platform": platform.platform(),
        "uname": list(platform.uname()),
        "version": platform.version(),
        "memory": list(psutil.virtual_memory()),
        "cpucount": os.cpu_count(),
        "loadavg": list(os.getloadavg()),
        "cpu_percent": psutil.cpu_percent(),
        "hostname": socket.gethostname(),
        "inet": _address(psutil.net_if_addrs()),
    }


def _address(interfaces: dict[str, list[Any]]) -> str:
    """Return the first IPv4 address of this host that is not a loopback address. Send no packet."""
    found = [
        each.address for name in interfaces for each in interfaces[name] if each.family == socket.AF_INET
    ]
    return next((address for address in found if not address.startswith("127.")), "127.0.0.1")


@action(
    "internalctl",
    meta=InternalctlMeta,
    text="Read or change the state: the settings as a tree of paths like ``/swift/container_name``.",
)
def internalctl(context: ActionContext, meta: InternalctlMeta) -> Reply:
    """Read or change the settings and the other nodes of the state tree."""
    if not meta.var:
        raise MessageError("meta 'var' must name a part of the state, such as /swift/container_name")
    if context.principal.permissions.prefix:
        raise ForbiddenError("internalctl needs a token without a prefix")
    if meta.set is not None:
        require_trusted(context, "internalctl set")
        context.handler.state.set(meta.var, meta.set, at_run_time=context.principal.is_remote)
        is_tree = isinstance(meta.set, dict)
        changed = _part(context.handler.state.get(meta.var), meta.set) if is_tree else _get(context, meta.var)
        return Reply({"d_ret": changed, "status": True})
    if meta.value_replace is not None:
        require_trusted(context, "internalctl valueReplace")
        is_remote = context.principal.is_remote
        paths = context.handler.state.replace(meta.var, meta.value_replace, at_run_time=is_remote)
        answer = {"status": True, "l_fileChanged": paths, "hits": len(paths)}
        return Reply({"d_ret": answer, "status": True})
    if meta.get is None:
        raise MessageError("internalctl needs one of the meta keys get, set and valueReplace")
    try:
        return Reply({"d_ret": _get(context, meta.var), "status": True})
    except NotFoundError as e:
        return Reply({"d_ret": {}, "status": False, "msg": str(e)})


def _get(context: ActionContext, var: str) -> dict[str, Any]:
    """Return the value at *var*: a leaf by its whole path, a tree nested in each of its parents."""
    value = context.handler.state.get(var)
    shown: dict[str, Any] = nested(var, value) if isinstance(value, dict) else {var: value}
    return shown


def _part(shown: Any, of: Any) -> Any:
    """Return the part of *shown* with the names of the tree *of*."""
    if isinstance(shown, dict) and isinstance(of, dict):
        return {name: _part(shown[name], each) for name, each in of.items()}
    return shown


def require_trusted(context: ActionContext, operation: str) -> None:
    """Raise `ForbiddenError` unless the sender may change the service."""
    if not context.principal.is_trusted:
        raise ForbiddenError(
            f"{operation} is taken only as a JSON message with a token that may do all,"
            " or, where there are no tokens, from the machine itself"
        )


def control(context: ActionContext, message: Message) -> Reply:
    """Perform ``meta.ctl``. Its only command is ``{"serverCmd": "quit"}``."""
    command = message.meta["ctl"]
    if not isinstance(command, dict) or command.get("serverCmd") != "quit":
        raise MessageError('meta \'ctl\' takes {"serverCmd": "quit"}')
    require_trusted(context, "quit")
    if context.request.shut_down is None:
        raise MessageError("there is no server to quit: the message did not come to one")
    context.request.shut_down()
    return Reply({"msg": "Server shut down", "status": True})
