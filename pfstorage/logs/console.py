"""Log to stderr, by verbosity. stdout is for the reply."""

from __future__ import annotations

import functools
import importlib
import json
import logging
import os
import sys
import threading
import time
import traceback
import warnings
from collections.abc import Callable, Iterator, Set
from datetime import datetime, timezone
from types import ModuleType
from typing import Any

from pfstorage.logs.batches import FLUSH_SECONDS, BatchHandler
from pfstorage.settings.redaction import without

# By verbosity: nothing; a line for each message; a line for each step, which may name files.
LOG_LEVELS = {0: logging.CRITICAL + 1, 1: logging.INFO, 2: logging.DEBUG}

log = logging.getLogger(__name__)
_Secrets = Callable[[], Set[str]]


def import_tidily(name: str) -> ModuleType:
    """Import a module of the pf* family, and undo its changes to the logging of this program.

    pfmisc configures the root logger when it is imported (``logging.basicConfig`` with DEBUG), and pfurl imports
    pfmisc.
    """
    root = logging.getLogger()
    level, handlers, disabled = root.level, list(root.handlers), logging.root.manager.disable
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # pfmisc imports deprecated modules
        module = importlib.import_module(name)
    for handler in [each for each in root.handlers if each not in handlers]:
        root.removeHandler(handler)
        handler.close()
    root.setLevel(level)
    logging.disable(disabled)
    return module


def debug_printer(verbosity: int, within: str) -> Any:
    """Return the ``dp`` of the 2.x classes: a `pfmisc.debug`, which prints to stdout as in 2.x."""
    return import_tidily("pfmisc").debug(verbosity=verbosity, within=within)


def set_up_logging(
    verbosity: int, form: str = "text", secrets: _Secrets = frozenset, *, in_batches: bool = False
) -> None:
    """Send the log of pfstorage to stderr. Its *form* is ``text``, with colours on a terminal, or ``json``.

    A server writes the log *in_batches*, so that no thread waits for it. The results of *secrets* are masked in each
    line. A traceback has the types of errors; it has their texts only at a verbosity that may name files.
    """
    # the formats do not use these values, which take time ("Optimization" in Python's Logging HOWTO)
    logging.logThreads = logging.logProcesses = logging.logMultiprocessing = False
    logging._srcfile = None
    logger = logging.getLogger("pfstorage")
    handler: logging.Handler = logging.NullHandler()  # a daemon may have no stderr
    if sys.stderr is not None:
        handler = BatchHandler(sys.stderr, line_of) if in_batches else logging.StreamHandler()
        is_colourful = sys.stderr.isatty() and "NO_COLOR" not in os.environ
        kind = _JsonFormatter if form == "json" else _ColourFormatter if is_colourful else _Formatter
        handler.setFormatter(kind(secrets))
    logger.handlers = [handler]
    logger.propagate = False
    set_verbosity(verbosity)


def set_verbosity(verbosity: int) -> None:
    """Change the level of the log to that of *verbosity*."""
    logger = logging.getLogger("pfstorage")
    logger.setLevel(LOG_LEVELS.get(verbosity, logging.DEBUG))
    for handler in logger.handlers:
        if isinstance(handler.formatter, _Formatter):
            handler.formatter.shows_texts = logger.level <= logging.DEBUG


def print_line(text: str, level: str = "ERROR") -> None:
    """Print *text* to stderr at any verbosity, in the form of the log and after earlier lines.

    Without stderr, do nothing: `print` would use stdout instead.
    """
    if sys.stderr is None:
        return
    for handler in logging.getLogger("pfstorage").handlers:
        if isinstance(handler, BatchHandler):
            handler.add_line(line_of(text, level))
            handler.wait(0)
            return
    print(line_of(text, level), file=sys.stderr, flush=True)  # noqa: T201 - this is the place for it


def line_of(text: str, level: str = "WARNING") -> str:
    """Return *text* as a line of the program, in the form of the log."""
    for handler in logging.getLogger("pfstorage").handlers:
        if isinstance(handler.formatter, _JsonFormatter):
            return handler.format(logging.makeLogRecord({"levelname": level, "msg": text}))
    return f"pfstorage: {text}"


def write_log() -> bool:
    """Write the remaining lines of a server, and return whether all are written.

    Wait for at most some seconds, because the reader of stderr may have stopped.
    """
    handlers = logging.getLogger("pfstorage").handlers
    return all(handler.wait(FLUSH_SECONDS) for handler in handlers if isinstance(handler, BatchHandler))


def log_uncaught_errors() -> None:
    """Log an error that ends a thread. Python itself would print it to stderr with its text."""

    def note(args: threading.ExceptHookArgs) -> None:
        if args.exc_value is not None:
            log.error(
                "an unexpected error ended a thread: report it with this traceback", exc_info=args.exc_value
            )

    threading.excepthook = note


class _Formatter(logging.Formatter):
    """A formatter of records as the line ``time level message``, with a traceback if a record has an error."""

    # whether a traceback shows the texts of errors
    shows_texts = False

    def __init__(self, secrets: _Secrets) -> None:
        super().__init__()
        self._secrets = secrets

    def format(self, record: logging.LogRecord) -> str:
        moment = f"{_second(int(record.created))},{int(record.msecs):03}"
        text = f"{moment} {record.levelname} {record.getMessage()}"
        return self._masked(f"{text}\n{self.formatException(record.exc_info)}" if record.exc_info else text)

    def _masked(self, text: str) -> str:
        return str(without(text, frozenset(self._secrets())))

    def formatException(self, ei: Any) -> str:  # noqa: N802 - the name of the base class
        return super().formatException(ei) if self.shows_texts else "".join(_places(ei[1])).rstrip()


class _ColourFormatter(_Formatter):
    """A formatter that adds a colour for each level."""

    def __init__(self, secrets: _Secrets) -> None:
        super().__init__(secrets)
        self._palette = import_tidily("pfmisc").Colors

    def format(self, record: logging.LogRecord) -> str:
        names = {logging.DEBUG: "CYAN", logging.INFO: "GREEN", logging.WARNING: "YELLOW"}
        colour = getattr(self._palette, names.get(record.levelno, "RED"))
        return f"{colour}{super().format(record)}{self._palette.NO_COLOUR}"


class _JsonFormatter(_Formatter):
    """A formatter of records as JSON in one line: ``time`` in UTC, ``level``, and ``message`` or their *fields*."""

    def format(self, record: logging.LogRecord) -> str:
        moment = datetime.fromtimestamp(record.created, timezone.utc)
        line: dict[str, Any] = {"time": moment.isoformat(timespec="milliseconds"), "level": record.levelname}
        fields = getattr(record, "fields", None)
        line |= fields if fields else {"message": record.getMessage()}
        if record.exc_info:
            line["traceback"] = self.formatException(record.exc_info)
        shown = {name: self._masked(each) if isinstance(each, str) else each for name, each in line.items()}
        return json.dumps(shown, ensure_ascii=False)


@functools.lru_cache(1)
def _second(seconds: int) -> str:
    return time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(seconds))


def _places(error: BaseException | None) -> Iterator[str]:
    """Yield the lines of a traceback without the texts of the errors, which may contain names or secrets."""
    if error is None:
        return
    yield from _places(error.__cause__ or (None if error.__suppress_context__ else error.__context__))
    yield "Traceback (most recent call last):\n"
    yield from traceback.format_tb(error.__traceback__)
    yield f"{type(error).__qualname__} (--verbosity 2 shows its text)\n"
