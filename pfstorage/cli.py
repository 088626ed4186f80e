"""The command line: flags become settings, ``--msg`` becomes a message, the reply goes to stdout."""

from __future__ import annotations

import argparse
import contextlib
import gc
import json
import os
import resource
import signal
import threading
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from pfstorage import output
from pfstorage._version import __version__
from pfstorage.flags import DESCRIPTION, DETAILS, SYNOPSIS, build_parser
from pfstorage.stop import Stop
from pfstorage.texts import is_elsewhere, secret_of, text_of

if TYPE_CHECKING:
    from pfstorage.reply import Reply

DONE, FAILED, MALFORMED, INTERRUPTED, TERMINATED = 0, 1, 2, 130, 143


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line *argv* and return its exit status."""
    with output.standard_streams(_line_of):
        return _main(argv)


def _line_of(text: str) -> str:
    from pfstorage.console import line_of

    return line_of(text)


def _main(argv: Sequence[str] | None) -> int:
    parser = build_parser()
    options = parser.parse_args(argv)
    told = _told(options)
    if told is not None:
        return DONE if output.tell(told) else FAILED
    _hide_secrets(options)
    _check_combination(parser, options)
    stop = Stop()
    try:
        with _signals_for(stop):
            status = _run(parser, options, stop)
    except Terminated:
        return TERMINATED
    except KeyboardInterrupt:
        return INTERRUPTED
    return STATUS_BY_REASON.get(stop.reason, status)


def _told(options: argparse.Namespace) -> str | None:
    """Return what the flags want to be told of the program itself, None if that is nothing."""
    if options.b_version:
        return f"Version: {__version__}"
    if options.makeToken:
        return _new_token()
    if options.desc or options.synopsis:
        return "\n\n".join([DESCRIPTION, SYNOPSIS, *([DETAILS] if options.desc else [])])
    return None


def _hide_secrets(options: argparse.Namespace) -> None:
    """See that the list of processes does not show for long what is secret in the flags."""
    from pfstorage import cmdline
    from pfstorage.masks import without_password

    given = [getattr(options, name) for name in ("swiftKey", "authToken")]
    shown = {value: "" for value in given if value and not is_elsewhere(value)}
    urls = [getattr(options, name) for name in ("swiftAuthUrl", "httpProxy", "remote")]
    shown |= {url: without_password(url) for url in urls if url and "@" in url}
    if shown:
        cmdline.hide(shown)


class Terminated(KeyboardInterrupt):
    """SIGTERM came: what runs is left as at an interrupt, with nothing unfinished lying about."""


STATUS_BY_REASON = {"SIGINT": INTERRUPTED, "SIGTERM": TERMINATED}


@contextlib.contextmanager
def _signals_for(stop: Stop) -> Iterator[None]:
    """Let SIGINT and SIGTERM request *stop*, which ends a transfer tidily, for the length of the block.

    Where nothing heeds it, and the second time, they end the program as an interrupt does.
    """

    def interrupt(number: int, _: object) -> None:
        name = signal.Signals(number).name
        if not stop.is_heeded or stop.is_requested:
            raise Terminated if name == "SIGTERM" else KeyboardInterrupt
        stop.request(name)

    if threading.current_thread() is not threading.main_thread():
        yield  # signals are not ours there
        return
    before = {number: signal.signal(number, interrupt) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


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
    if options.str_args and not options.str_action:
        parser.error("--args goes with --action")
    if options.remote == "":
        parser.error("--remote names no server: give HOST:PORT or a URL")
    if options.remote and (options.server or any(getattr(options, name) for name in _LOCAL_STORE)):
        parser.error(
            "--remote sends the message to a server that has its own store: leave out the store's flags"
        )


def _run(parser: argparse.ArgumentParser, options: argparse.Namespace, stop: Stop) -> int:
    from pfstorage import console
    from pfstorage.actions import Caller
    from pfstorage.config import to_document
    from pfstorage.errors import LocalFileError, MessageError, SettingsError
    from pfstorage.handler import StoreHandler
    from pfstorage.progress import shown_on_stderr
    from pfstorage.reply import Reply

    console.set_up_logging(1 if options.verbosity is None else options.verbosity, options.logFormat)
    _take_all_descriptors()
    try:
        message = _message(options)
        key_source = options.swiftKey
        options.swiftKey = secret_of("--swiftKey", key_source)
        options.authToken = secret_of("--authToken", options.authToken)
        handler = StoreHandler.from_args(vars(options), name="pfstorage", version=__version__)
        if options.str_configFileSave:
            document = to_document(handler.settings, with_secrets=options.saveSecrets)
            _save(options.str_configFileSave, document)
    except MessageError as e:
        return _print(Reply.of_error(e))
    except (SettingsError, LocalFileError) as e:
        parser.exit(MALFORMED, f"pfstorage: {e}\n")
    console.set_up_logging(
        handler.settings.verbosity,
        options.logFormat,
        lambda: handler.settings.secrets() | {options.authToken} - {""},
    )
    gc.freeze()  # no collection needs to look at what was imported, nor does the last one, at the end
    if options.server:
        from pfstorage.serving.program import serve

        try:
            return DONE if serve(handler, options, key_source) else FAILED
        except SettingsError as e:
            parser.exit(MALFORMED, f"pfstorage: {e}\n")
    if message is None:
        if options.str_configFileSave:
            return DONE
        parser.error("there is nothing to do: give --msg, --action, --test or --server (--help tells more)")
    try:
        show = shown_on_stderr(handler.settings.verbosity)
        here = Caller(streams=True, stop=stop, progress=show)
        return _print(_remote(options, message) if options.remote else handler.answer(message, here))
    finally:
        handler.close()


def _take_all_descriptors() -> None:
    """Raise the limit of open files as far as this process may: 64 workers and their batches take over 1000."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    with contextlib.suppress(ValueError, OSError):  # macOS says that it may be more than it takes
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))


def _message(options: argparse.Namespace) -> str | dict[str, Any] | None:
    """Return the message that the flags ask for, None if they ask for none."""
    from pfstorage.message import decode_json

    if options.b_test:
        return {"action": "hello", "meta": {"askAbout": "sysinfo", "echoBack": "Hi there!"}}
    if options.str_action:
        meta = decode_json(options.str_args) if options.str_args else {}
        return {"action": options.str_action, "meta": meta}
    return None if options.msg is None else text_of(options.msg)


def _save(path: str, document: Mapping[str, Any]) -> None:
    """Write a configuration file, whole or not at all, that only its owner can read. Links to it stay."""
    from pfstorage.errors import SettingsError
    from pfstorage.files import LocalTree, local_errors

    with local_errors(path):
        if output.is_stream(path):  # to put a file in its place would take /dev/stdout from the whole system
            raise SettingsError(f"--configFileSave writes a regular file, and {path!r} is none; name a file")
    directory, name = os.path.split(os.path.realpath(path))
    with local_errors(path), LocalTree(directory).whole_file((name,), mode=0o600) as file:
        file.write(json.dumps(document, indent=4).encode() + b"\n")


def _remote(options: argparse.Namespace, message: str | dict[str, Any]) -> Reply:
    from pfstorage.errors import PfstorageError
    from pfstorage.message import Message
    from pfstorage.remote import send
    from pfstorage.reply import Reply

    try:
        return send(options.remote, Message.parse(message), options.authToken)
    except PfstorageError as e:
        return Reply.of_error(e)


def _print(reply: Reply) -> int:
    from pfstorage.console import complain
    from pfstorage.errors import MessageError

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


def _new_token() -> str:
    from pfstorage.serving.tokens import make_token

    return make_token()
