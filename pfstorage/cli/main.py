"""The command line: flags become settings, ``--msg`` becomes a message, the reply goes to stdout."""

from __future__ import annotations

import argparse
import contextlib
import gc
import json
import logging
import os
import resource
import signal
import threading
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from pfstorage._version import __version__
from pfstorage.cli.flags import DESCRIPTION, DETAILS, SYNOPSIS, build_parser
from pfstorage.logs import output
from pfstorage.runtime.cancellation import CancellationToken
from pfstorage.settings.flags import FLAGS
from pfstorage.settings.values import is_reference, read_secret, read_text

if TYPE_CHECKING:
    from pfstorage.wire.reply import Reply

log = logging.getLogger(__name__)

DONE, FAILED, MALFORMED = 0, 1, 2


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line *argv* and return its exit status."""
    cancellation = CancellationToken()
    try:
        with output.standard_streams(_line_of), _Signals(cancellation) as signals:
            status = _main(argv, cancellation, signals)
    except Ended as e:
        return e.status
    return STATUS_BY_REASON.get(cancellation.reason, status)


def _line_of(text: str) -> str:
    from pfstorage.logs.console import line_of

    return line_of(text)


def _main(argv: Sequence[str] | None, cancellation: CancellationToken, signals: _Signals) -> int:
    parser = build_parser()
    options = parser.parse_args(argv)
    told = _told(parser, options)
    if told is not None:
        return DONE if output.tell(told) else FAILED
    _check_combination(parser, options)
    if options.server:
        signals.wait_for_server()
    return _run(parser, options, cancellation, signals)


def _told(parser: argparse.ArgumentParser, options: argparse.Namespace) -> str | None:
    """Return what the flags want to be told of the program itself, None if that is nothing."""
    if options.b_version:
        return f"Version: {__version__}"
    if options.makeToken:
        return _new_token(parser, options)
    if options.desc or options.synopsis:
        return "\n\n".join([DESCRIPTION, SYNOPSIS, *([DETAILS] if options.desc else [])])
    return None


def _warn_of_secrets(options: argparse.Namespace) -> None:
    """Warn of each secret that stands in a flag: every user of this host can read it there (``ps``)."""
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


STATUS_BY_REASON = {name: 128 + signal.Signals[name] for name in ("SIGHUP", "SIGINT", "SIGQUIT", "SIGTERM")}
"""The exit status where a signal ended the program, as a shell tells it."""


class Ended(KeyboardInterrupt):
    """A signal came: what runs is left as at an interrupt, with nothing unfinished lying about."""

    def __init__(self, name: str) -> None:
        super().__init__(name)
        self.status = STATUS_BY_REASON[name]


class _Signals:
    """Has signals request *cancellation*, which ends a transfer tidily, for the length of its ``with``.

    Where nothing heeds it, and the second time, they end the program as an interrupt does; at once
    before anything has begun. Those that the program was started to ignore, as by nohup, it ignores.
    """

    def __init__(self, cancellation: CancellationToken) -> None:
        self._stop = cancellation
        self._has_begun = False
        self._before: dict[int, Any] = {}

    def __enter__(self) -> _Signals:
        if threading.current_thread() is threading.main_thread():  # in another, signals are not ours
            for name in STATUS_BY_REASON:
                number = signal.Signals[name]
                # a shell without job control starts what ends with "&" so that it ignores SIGINT
                if name in ("SIGINT", "SIGTERM") or signal.getsignal(number) != signal.SIG_IGN:
                    self._before[number] = signal.signal(number, self._come)
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def begin(self) -> None:
        """From now on, there may be something to leave tidily."""
        self._has_begun = True

    def wait_for_server(self) -> None:
        """Ignore what has a server read its settings again, until there is one."""
        if signal.SIGHUP in self._before:
            signal.signal(signal.SIGHUP, signal.SIG_IGN)

    def _come(self, number: int, _: object) -> None:
        name = signal.Signals(number).name
        if not self._has_begun:  # an exception in the middle of an import may be lost
            os._exit(STATUS_BY_REASON[name])
        if not self._stop.has_listeners or self._stop.is_cancelled:
            raise Ended(name)
        self._stop.cancel(name)


_LOCAL_STORE = (
    "str_type",
    "storeBase",
    "ipSwift",
    "portSwift",
    "swiftAuthUrl",
    "swiftUsername",
    "swiftContainer",
)


def _check_combination(parser: argparse.ArgumentParser, options: argparse.Namespace) -> None:
    """Refuse flags that would be without effect beside others."""
    sources = [options.msg is not None, bool(options.str_action), options.b_test, options.server]
    if sum(sources) > 1:
        parser.error("--msg, --action, --test and --server are four ways; give one")
    if options.rights or options.prefix is not None or options.expires:
        parser.error("--rights, --prefix and --expires go with --makeToken")
    if options.str_args and not options.str_action:
        parser.error("--args goes with --action")
    if options.remote == "":
        parser.error("--remote names no server: give HOST:PORT or a URL")
    if options.remote and (options.server or any(getattr(options, name) for name in _LOCAL_STORE)):
        parser.error(
            "--remote sends the message to a server that has its own store: leave out the store's flags"
        )


def _run(
    parser: argparse.ArgumentParser,
    options: argparse.Namespace,
    cancellation: CancellationToken,
    signals: _Signals,
) -> int:
    from pfstorage.actions import RequestContext
    from pfstorage.cli.progress import shown_on_stderr
    from pfstorage.errors import LocalFileError, MessageError, SettingsError
    from pfstorage.handler import StoreHandler
    from pfstorage.logs import console
    from pfstorage.settings.model import to_document
    from pfstorage.settings.sources import server_settings
    from pfstorage.wire.reply import Reply

    console.set_up_logging(1 if options.verbosity is None else options.verbosity, options.logFormat)
    _warn_of_secrets(options)
    _take_all_descriptors()
    try:
        message = _message(options)
        signals.begin()
        key_source = options.swiftKey
        options.swiftKey = read_secret("--swiftKey", key_source)
        options.authToken = read_secret("--authToken", options.authToken)
        handler = StoreHandler.from_args(vars(options), name="pfstorage", version=__version__)
        if options.str_configFileSave:
            document = to_document(handler.settings, with_secrets=options.saveSecrets)
            server = server_settings(vars(options))
            _save(options.str_configFileSave, document | ({"server": server} if server else {}))
    except MessageError as e:
        return _print(Reply.from_error(e))
    except (SettingsError, LocalFileError) as e:
        parser.exit(MALFORMED, f"pfstorage: {e}\n")
    console.set_up_logging(
        handler.settings.verbosity,
        options.logFormat,
        lambda: handler.settings.secrets() | {options.authToken} - {""},
    )
    gc.freeze()  # no collection needs to look at what was imported, nor does the last one, at the end
    if options.server:
        from pfstorage.server.program import serve

        try:
            return DONE if serve(handler, options, key_source) else FAILED
        except (SettingsError, LocalFileError) as e:
            parser.exit(MALFORMED, f"pfstorage: {e}\n")
    if message is None:
        if options.str_configFileSave:
            return DONE
        parser.error("there is nothing to do: give --msg, --action, --test or --server")
    try:
        show = shown_on_stderr(handler.settings.verbosity)
        context = RequestContext(stream_after=0, cancellation=cancellation, progress=show)
        return _print(
            _remote(options, message, cancellation) if options.remote else handler.answer(message, context)
        )
    finally:
        handler.close()


def _take_all_descriptors() -> None:
    """Raise the limit of open files as far as this process may: 64 workers and their batches take over 1000."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    with contextlib.suppress(ValueError, OSError):  # macOS says that it may be more than it takes
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))


def _message(options: argparse.Namespace) -> str | dict[str, Any] | None:
    """Return the message that the flags ask for, None if they ask for none."""
    from pfstorage.errors import LocalFileError, MessageError, SettingsError
    from pfstorage.wire.decoding import decode_json

    if options.b_test:
        return {"action": "hello", "meta": {"askAbout": "sysinfo", "echoBack": "Hi there!"}}
    if options.str_action:
        try:
            meta = decode_json(options.str_args) if options.str_args else {}
        except MessageError as e:
            raise MessageError(f"--args: {e}") from None
        return {"action": options.str_action, "meta": meta}
    try:
        return None if options.msg is None else read_text(options.msg)
    except LocalFileError as e:
        raise SettingsError(f"--msg: {e}") from e


def _save(path: str, document: Mapping[str, Any]) -> None:
    """Write a configuration file, whole or not at all, that only its owner can read. Links to it stay."""
    from pfstorage.errors import SettingsError
    from pfstorage.local import LocalTree, local_errors

    with local_errors(path):
        if output.is_stream(path):  # to put a file in its place would take /dev/stdout from the whole system
            raise SettingsError(f"--configFileSave writes a regular file, and {path!r} is none; name a file")
    directory, name = os.path.split(os.path.realpath(path))
    with local_errors(path), LocalTree(directory).atomic_file((name,), mode=0o600) as file:
        file.write(json.dumps(document, indent=4).encode() + b"\n")


def _remote(
    options: argparse.Namespace, message: str | dict[str, Any], cancellation: CancellationToken
) -> Reply:
    from pfstorage.cli.remote import Way, send
    from pfstorage.errors import PfstorageError
    from pfstorage.settings.urls import proxy_url
    from pfstorage.wire.message import Message
    from pfstorage.wire.reply import Reply

    way = Way(proxy_url(options.httpProxy or ""), options.caCert or "", bool(options.insecure))
    try:
        return send(options.remote, Message.parse(message), options.authToken, cancellation, way)
    except PfstorageError as e:
        return Reply.from_error(e)


def _print(reply: Reply) -> int:
    from pfstorage.errors import MessageError
    from pfstorage.logs.console import complain

    try:
        stream = output.stdout()
        is_done = reply.write(stream, end="\n")
        output.finish(stream)
    except OSError as e:  # whoever read it has gone, or what it went into is full
        complain(f"cannot write the reply: {e.strerror}")
        return FAILED
    if is_done:
        return DONE
    return MALFORMED if isinstance(reply.error, MessageError) else FAILED


def _new_token(parser: argparse.ArgumentParser, options: argparse.Namespace) -> str:
    from pfstorage.errors import LocalFileError, SettingsError
    from pfstorage.server.token_making import new_token

    try:
        return new_token(options.rights, options.prefix, options.expires, options.tokenPath)
    except (SettingsError, LocalFileError) as e:
        parser.exit(MALFORMED, f"pfstorage: {e}\n")
