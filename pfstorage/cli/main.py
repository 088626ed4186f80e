"""Run the command line: turn flags into settings and a message, and print the reply to stdout."""

from __future__ import annotations

import argparse
import contextlib
import gc
import json
import os
import resource
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from pfstorage._version import __version__
from pfstorage.cli.combinations import check_backend, check_combination, warn_of_secrets, warn_of_unused
from pfstorage.cli.flags import DESCRIPTION, DETAILS, SYNOPSIS, build_parser
from pfstorage.cli.signals import STATUS_BY_SIGNAL, EndedBySignal, SignalHandlers
from pfstorage.logs import output
from pfstorage.runtime.cancellation import CancellationToken
from pfstorage.settings.values import read_secret, read_text

if TYPE_CHECKING:
    from pfstorage.wire.reply import Reply

DONE, FAILED, MALFORMED = 0, 1, 2


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line *argv* and return its exit status."""
    cancellation = CancellationToken()
    try:
        with output.standard_streams(_line_of), SignalHandlers(cancellation) as signals:
            status = _main(argv, cancellation, signals)
    except EndedBySignal as e:
        return e.status
    return STATUS_BY_SIGNAL.get(cancellation.reason, status)


def _line_of(text: str) -> str:
    from pfstorage.logs.console import line_of

    return line_of(text)


def _main(argv: Sequence[str] | None, cancellation: CancellationToken, signals: SignalHandlers) -> int:
    parser = build_parser()
    options = parser.parse_args(argv)
    text = _program_text(parser, options)
    if text is not None:
        return DONE if output.print_text(text) else FAILED
    check_combination(parser, options)
    if options.server:
        signals.ignore_hangup()
    return _run(parser, options, cancellation, signals)


def _program_text(parser: argparse.ArgumentParser, options: argparse.Namespace) -> str | None:
    """Return the text about the program that the flags ask for, or None."""
    if options.b_version:
        return f"Version: {__version__}"
    if options.makeToken:
        return _new_token(parser, options)
    if options.desc or options.synopsis:
        return "\n\n".join([DESCRIPTION, SYNOPSIS, *([DETAILS] if options.desc else [])])
    return None


def _run(
    parser: argparse.ArgumentParser,
    options: argparse.Namespace,
    cancellation: CancellationToken,
    signals: SignalHandlers,
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
    warn_of_secrets(options)
    _take_all_descriptors()
    try:
        message = _message_of_flags(options)
        signals.begin()
        key_source = options.swiftKey
        options.swiftKey = read_secret("--swiftKey", key_source)
        options.authToken = read_secret("--authToken", options.authToken)
        handler = StoreHandler.from_args(vars(options), name="pfstorage", version=__version__)
        check_backend(parser, options, handler.settings.type)
        warn_of_unused(options)
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
    gc.freeze()  # no collection needs to examine imported objects, not even the last one at the end
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
    with contextlib.suppress(ValueError, OSError):  # macOS reports a higher limit than it accepts
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))


def _message_of_flags(options: argparse.Namespace) -> str | dict[str, Any] | None:
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
    """Write a configuration file atomically. Only its owner can read it. Links to it stay."""
    from pfstorage.errors import SettingsError
    from pfstorage.local import LocalTree, local_errors

    with local_errors(path):
        if output.is_stream(path):  # a file that replaces /dev/stdout would remove it from the whole system
            raise SettingsError(
                f"--configFileSave writes a regular file; {path!r} is another kind: name a file"
            )
    directory, name = os.path.split(os.path.realpath(path))
    with local_errors(path), LocalTree(directory).atomic_file((name,), mode=0o600) as file:
        file.write(json.dumps(document, indent=4).encode() + b"\n")


def _remote(
    options: argparse.Namespace, message: str | dict[str, Any], cancellation: CancellationToken
) -> Reply:
    from pfstorage.cli.remote import RemoteOptions, send
    from pfstorage.errors import PfstorageError
    from pfstorage.settings.urls import proxy_url
    from pfstorage.wire.message import Message
    from pfstorage.wire.reply import Reply

    way = RemoteOptions(proxy_url(options.httpProxy or ""), options.caCert or "", bool(options.insecure))
    try:
        return send(options.remote, Message.parse(message), options.authToken, cancellation, way)
    except PfstorageError as e:
        return Reply.from_error(e)


def _print(reply: Reply) -> int:
    from pfstorage.errors import MessageError
    from pfstorage.logs.console import print_line

    try:
        stream = output.stdout()
        is_done = reply.write(stream, end="\n")
        output.finish(stream)
    except OSError as e:  # its reader has ended, or the disk is full
        print_line(f"cannot write the reply: {e.strerror}")
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
