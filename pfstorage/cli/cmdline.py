"""The arguments of this process, as everybody on this machine may read them (``ps``)."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from pathlib import Path


def hide(shown: Mapping[str, str]) -> None:
    """Overwrite those arguments, or values of flags, that are keys of *shown*, with what is shown instead.

    That is cut, or filled with ``*``, to the same length. Whoever looks before that sees them all the
    same. It is done on Linux, where a process may write to its own memory; elsewhere nothing is.
    """
    with contextlib.suppress(OSError, ValueError, IndexError):
        fields = Path("/proc/self/stat").read_text().rpartition(")")[2].split()
        start, end = map(int, fields[45:47])  # arg_start, arg_end (proc_pid_stat(5); the first is the third)
        with open("/proc/self/mem", "r+b", buffering=0) as memory:
            memory.seek(start)
            before = memory.read(end - start)
            after = b"\0".join(_hidden(each, shown) for each in before.split(b"\0"))
            memory.seek(start)
            memory.write(after)


def _hidden(argument: bytes, shown: Mapping[str, str]) -> bytes:
    for value, instead in shown.items():
        old = value.encode(errors="surrogateescape")
        if argument == old or argument.endswith(b"=" + old):
            new = instead.encode(errors="surrogateescape")
            return argument.removesuffix(old) + new[: len(old)].ljust(len(old), b"*")
    return argument
