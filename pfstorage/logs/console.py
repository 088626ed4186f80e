"""What a person sees: log lines on stderr, by verbosity. stdout is left to the reply."""

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

from pfstorage.logs.batches import PATIENCE, BatchHandler
from pfstorage.settings.redaction import without

LEVELS = {0: logging.CRITICAL + 1, 1: logging.INFO, 2: logging.DEBUG}
"""By verbosity: nothing; a line for each message; a line for each step, which may name files."""

log = logging.getLogger(__name__)
_Secrets = Callable[[], Set[str]]


def import_tidily(name: str) -> ModuleType:
    """Import a module of the pf* family and undo what that does to the logging of this program.

    pfmisc sets up the root logger at import (``logging.basicConfig`` with DEBUG), and
    pfurl imports pfmisc.
    """
    root = logging.getLogger()
    level, handlers, disabled = root.level, list(root.handlers), logging.root.manager.disable
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of modules that pfmisc still imports
        module = importlib.import_module(name)
    for handler in [each for each in root.handlers if each not in handlers]:
        root.removeHandler(handler)
        handler.close()
    root.setLevel(level)
    logging.disable(disabled)
    return module


def debug_printer(verbosity: int, within: str) -> Any:
    """Return the ``dp`` of the 2.x classes: a `pfmisc.debug`, which prints to stdout as it always did."""
    return import_tidily("pfmisc").debug(verbosity=verbosity, within=within)


def set_up_logging(
    verbosity: int, form: str = "text", secrets: _Secrets = frozenset, *, in_batches: bool = False
) -> None:
    """Send the log of pfstorage to stderr: as text, in colours if that is a terminal, or as a JSON object a line.

    A server writes it *in_batches*, so that none of its threads waits for that.

    What *secrets* returns is masked in each line. A traceback tells of errors by their types,
    and by what they say only where files may be named.
    """
    # what no line shows is not looked up for each ("Optimization" in Python's Logging HOWTO)
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
    """Log as much as *verbosity* says from now on, to where `set_up_logging` sends it."""
    logger = logging.getLogger("pfstorage")
    logger.setLevel(LEVELS.get(verbosity, logging.DEBUG))
    for handler in logger.handlers:
        if isinstance(handler.formatter, _Formatter):
            handler.formatter.tells_values = logger.level <= logging.DEBUG


def complain(text: str, level: str = "ERROR") -> None:
    """Say *text* on stderr at any verbosity, if there is one: `print` would take stdout instead.

    It comes after what was logged before, and is a JSON object where the log is. A log in batches takes it as one
    of its lines.
    """
    if sys.stderr is None:
        return
    for handler in logging.getLogger("pfstorage").handlers:
        if isinstance(handler, BatchHandler):
            handler.say(line_of(text, level))
            handler.wait(0)
            return
    print(line_of(text, level), file=sys.stderr, flush=True)  # noqa: T201 - this is the place for it


def line_of(text: str, level: str = "WARNING") -> str:
    """Return *text* as the program says it: in the form that the log has."""
    for handler in logging.getLogger("pfstorage").handlers:
        if isinstance(handler.formatter, _JsonFormatter):
            return handler.format(logging.makeLogRecord({"levelname": level, "msg": text}))
    return f"pfstorage: {text}"


def write_log() -> bool:
    """Write what a server has logged, for some seconds at most, for nobody may read it. Tell whether that is all."""
    handlers = logging.getLogger("pfstorage").handlers
    return all(handler.wait(PATIENCE) for handler in handlers if isinstance(handler, BatchHandler))


def log_what_ends_threads() -> None:
    """Log what ends a thread unexpectedly, instead of writing it to stderr with all that it says."""

    def note(args: threading.ExceptHookArgs) -> None:
        if args.exc_value is not None:
            log.error("a thread ended for a reason that pfstorage does not know", exc_info=args.exc_value)

    threading.excepthook = note


class _Formatter(logging.Formatter):
    """``time level message``, one line each, a traceback only where it is asked for."""

    tells_values = False
    """Whether a traceback tells what the errors say."""

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
        return super().formatException(ei) if self.tells_values else "".join(_places(ei[1])).rstrip()


class _ColourFormatter(_Formatter):
    """The same, each level in its colour."""

    def __init__(self, secrets: _Secrets) -> None:
        super().__init__(secrets)
        self._palette = import_tidily("pfmisc").Colors

    def format(self, record: logging.LogRecord) -> str:
        names = {logging.DEBUG: "CYAN", logging.INFO: "GREEN", logging.WARNING: "YELLOW"}
        colour = getattr(self._palette, names.get(record.levelno, "RED"))
        return f"{colour}{super().format(record)}{self._palette.NO_COLOUR}"


class _JsonFormatter(_Formatter):
    """A JSON object a line: ``time`` in UTC, ``level``, ``message``, and the *fields* of the record if it has some."""

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
    """Yield the lines of a traceback without what the errors say, which may be names or secrets."""
    if error is None:
        return
    yield from _places(error.__cause__ or (None if error.__suppress_context__ else error.__context__))
    yield "Traceback (most recent call last):\n"
    yield from traceback.format_tb(error.__traceback__)
    yield f"{type(error).__qualname__} (--verbosity 2 tells what it says)\n"
