"""Check the flags of a command line against each other."""

from __future__ import annotations

import argparse
import logging

from pfstorage.settings.flag import Flag
from pfstorage.settings.flags import FLAGS
from pfstorage.settings.values import is_reference

log = logging.getLogger(__name__)

_LOCAL_STORE = {
    "type",
    "storeBase",
    "ipSwift",
    "portSwift",
    "swiftAuthUrl",
    "swiftUsername",
    "swiftContainer",
}


def _given(options: argparse.Namespace) -> dict[str, Flag]:
    """Return the given flags by their names."""
    values = {flag.name: getattr(options, flag.dest) for flag in FLAGS}
    return {
        flag.name: flag
        for flag in FLAGS
        if values[flag.name] is not False and values[flag.name] not in (None, "", [])
    }


def check_combination(parser: argparse.ArgumentParser, options: argparse.Namespace) -> None:
    """Refuse flags that contradict each other, and those that are wrong without another flag."""
    sources = [options.msg is not None, bool(options.str_action), options.b_test, options.server]
    if sum(sources) > 1:
        parser.error("--msg, --action, --test and --server exclude each other; give one")
    given = _given(options)
    for needs, flags in _alone(given).items():
        if names := [name for name in flags if given[name].is_refused_alone]:
            parser.error(f"{_list(names)} {'goes' if len(names) == 1 else 'go'} with {_list(needs, 'or')}")
    if options.remote is None:
        return
    _check_server(parser, options.remote)
    if options.server or not _LOCAL_STORE.isdisjoint(given):
        parser.error(
            "--remote sends the message to a server that has its own store: leave out the store's flags"
        )


def _check_server(parser: argparse.ArgumentParser, address: str) -> None:
    from pfstorage.settings.urls import server_url

    try:
        server_url(address)
    except ValueError as e:
        parser.error(f"--remote: {e}")


def check_backend(parser: argparse.ArgumentParser, options: argparse.Namespace, kind: str) -> None:
    """Check the flags of other backends than *kind*, the type of the store in use.

    Refuse a flag of a backend that only ``--type`` selects, since the data would go to another store than intended.
    Warn of a flag of the default backend, since a command line of 2.x always has some.
    """
    from pfstorage.settings.model import BLOCKS, CommonSettings

    if options.remote is not None:
        return
    others = [flag for flag in _given(options).values() if flag.block in BLOCKS and flag.block != kind]
    for flag in others:
        if flag.block != CommonSettings.type:
            parser.error(
                f"--{flag.name} goes with --type {flag.block}, and the type is {kind!r}: add --type {flag.block}, or"
                f" leave out --{flag.name}"
            )
    if others and not options.str_configFileSave:
        log.warning("the store of --type %s does not use %s", kind, _list([flag.name for flag in others]))


def warn_of_unused(options: argparse.Namespace) -> None:
    """Warn of the flags that have no effect without or with other ones."""
    given = _given(options)
    for needs, flags in _alone(given).items():
        _warn(flags, f"without {_list(needs, 'or')}")
    if "remote" in given and "configFileSave" not in given:
        _warn(
            [
                name
                for name, flag in given.items()
                if flag.setting and not (flag.is_for_remote or flag.companions)
            ],
            "with --remote",
        )


def _alone(given: dict[str, Flag]) -> dict[tuple[str, ...], list[str]]:
    """Return the names of the *given* flags that need other ones, by those."""
    found: dict[tuple[str, ...], list[str]] = {}
    for name, flag in given.items():
        if flag.companions and given.keys().isdisjoint(flag.companions):
            found.setdefault(flag.companions, []).append(name)
    return found


def _warn(names: list[str], condition: str) -> None:
    if names:
        verb = "has" if len(names) == 1 else "have"
        log.warning("%s %s no effect %s", _list(names), verb, condition)


def _list(names: list[str] | tuple[str, ...], word: str = "and") -> str:
    *most, last = [f"--{name}" for name in names]
    return f"{', '.join(most)} {word} {last}" if most else last


def warn_of_secrets(options: argparse.Namespace) -> None:
    """Warn of each secret in a flag: every user of this host can read it there (``ps``)."""
    from pfstorage.settings.redaction import without_password

    for flag in FLAGS:
        value = getattr(options, flag.dest) if flag.holds else None
        if not value or is_reference(value):
            continue
        if flag.holds == "secret":
            variables = f", set {flag.variables[0]}" if flag.variables else ""
            log.warning(
                "every user of this host can read --%s in the list of processes: give @FILE%s",
                flag.name,
                variables,
            )
        elif without_password(value) != value:
            instead = f": set {flag.setting} in the file of --configFileLoad" if flag.setting else ""
            log.warning(
                "every user of this host can read the password in --%s in the list of processes%s",
                flag.name,
                instead,
            )
