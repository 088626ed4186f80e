"""Parse the flags of the command line, and describe the program."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from typing import Any, NoReturn

from pfstorage.logs.output import Parser
from pfstorage.settings.flag import MAX_COUNT, Flag
from pfstorage.settings.flags import FLAGS

DESCRIPTION = """\
pfstorage gives one regular JSON interface to object storage: OpenStack Swift,
a directory, or memory. A message is {"action": "ls", "meta": {...}}; the reply is
JSON, too, on stdout. All other output goes to stderr."""

SYNOPSIS = """\
run one message:
    pfstorage --type filesystem --storeBase ./store --msg '{"action": "ls"}'
    pfstorage --ipSwift localhost --portSwift 8080 --msg @message.json
serve messages over HTTP:
    pfstorage --ipSwift localhost --portSwift 8080 --ipSelf 127.0.0.1 --portSelf 4055 --server --forever
send a message to such a server:
    pfstorage --remote 127.0.0.1:4055 --msg '{"action": "hello", "meta": {"askAbout": "timestamp"}}'"""

DETAILS = """\
The actions and their metas:
    ls            list objects          path, substr, retSpec, limit, marker, delimiter, sure, prependBucketPath
    objPut        files into the store  putSpec, inLocation, mapLocationOver, file, fileList, toObject,
                                        followSymlinks, stable (objPush is the same)
    objPull       objects to files      path, substr, fromLocation, mapLocationOver, fileList
    objVerify     compare both          as objPull; moves nothing
    these three   which files, and how  include, exclude, shard, overwrite, dryRun, audit, sure, reply,
                                        prependBucketPath
                                        async, jid: a server does it later, as a job
    objSweep      unused segments       path, olderThan, dryRun (default true), async, jid
    jobStatus     progress of a job     job or jid, wait
    jobList       the latest jobs       limit
    jobCancel     end a job             job or jid
    objExists     whether an object is  obj, prependBucketPath
                  in the store
    objStat       an object's metadata  obj, prependBucketPath
    hello         name, version, host   askAbout: timestamp | sysinfo | echoBack
    internalctl   read, change settings var with get, set or valueReplace

Exit status: 0 the reply's status is true; 1 it is false; 2 the message or a flag is malformed;
130 ended by SIGINT, 143 by SIGTERM, 129 by SIGHUP, 131 by SIGQUIT."""


class _Parser(Parser):
    def error(self, message: str) -> NoReturn:
        """End the program with one line, where argparse would print all flags, too.

        The line names only the flags among unknown arguments, because other arguments may be secrets.
        """
        start = "unrecognized arguments: "
        if message.startswith(start):
            words = [word.partition("=")[0] for word in message.removeprefix(start).split()]
            message = start + " ".join(word if word.startswith("-") else "..." for word in words)
        self.exit(2, f"{self.prog}: {message}; --help lists the flags\n")


def build_parser() -> argparse.ArgumentParser:
    """Return the parser. It keeps values by the names of 2.x: ``str_type``, ``b_forever`` and so on."""
    parser = _Parser(
        prog="pfstorage",
        description=DESCRIPTION,
        epilog=SYNOPSIS,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    for spellings, options in _ARGUMENTS:
        parser.add_argument(*spellings, **options)
    return parser


class _Store(argparse.Action):
    """Store the value of a flag. An empty value is an error, although argparse accepts it."""

    def __call__(
        self,
        parser: argparse.ArgumentParser,
        namespace: argparse.Namespace,
        values: Any,
        option_string: str | None = None,
    ) -> None:
        if values == "":
            parser.error(
                f"{option_string} is empty: give it a value (is a shell variable unset?), or leave it out for the"
                " default"
            )
        self.store(namespace, values)

    def store(self, namespace: argparse.Namespace, value: Any) -> None:
        setattr(namespace, self.dest, value)


class _Append(_Store):
    """Append the value of a repeatable flag."""

    def store(self, namespace: argparse.Namespace, value: Any) -> None:
        setattr(namespace, self.dest, [*getattr(namespace, self.dest), value])


def _argument(flag: Flag) -> tuple[list[str], dict[str, Any]]:
    """Return the arguments of ``add_argument`` for *flag*."""
    spellings = [*([f"-{flag.short}"] if flag.short else []), f"--{flag.name}"]
    options: dict[str, Any] = {"dest": flag.dest, "help": flag.help, "default": flag.default}
    if flag.kind == "switch":
        # None is a setting that was not given
        options |= {"action": "store_true", "default": None if flag.block == "this" else False}
    elif flag.kind == "texts":
        options |= {"action": _Append, "default": [], "metavar": flag.value}
    elif flag.choices:
        options["choices"] = flag.choices
    else:
        action = "store" if flag.may_be_empty else _Store
        options |= {"action": action, "type": _TYPES.get(flag.kind), "metavar": flag.value}
    return spellings, options


def _count_argument(text: str) -> int:
    if not text.isdecimal() or not 0 < int(text) <= MAX_COUNT:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number from 1 to {MAX_COUNT}")
    return int(text)


def _workers(text: str) -> int | str:
    if text != "auto" and not text.isdecimal():
        raise argparse.ArgumentTypeError(f"{text!r} is neither a number nor auto")
    return text if text == "auto" else int(text)


_TYPES: dict[str, Callable[[str], object]] = {
    "integer": int,
    "number": float,
    "count": _count_argument,
    "workers": _workers,
}

_ARGUMENTS = [_argument(flag) for flag in FLAGS]
