"""What a person sees: log lines on stderr, by verbosity. stdout is left to the reply."""

from __future__ import annotations

import importlib
import json
import logging
import os
import sys
import warnings
from datetime import datetime, timezone
from types import ModuleType
from typing import Any

LEVELS = {0: logging.CRITICAL + 1, 1: logging.INFO, 2: logging.DEBUG}
"""By verbosity: nothing; a line for each message; a line for each step, which may name files."""


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


def set_up_logging(verbosity: int, form: str = "text") -> None:
    """Send the log of pfstorage to stderr: as text, in colours if that is a terminal, or as a JSON object a line."""
    # what no line shows is not looked up for each ("Optimization" in Python's Logging HOWTO)
    logging.logThreads = logging.logProcesses = logging.logMultiprocessing = False
    logging._srcfile = None
    logger = logging.getLogger("pfstorage")
    handler: logging.Handler = logging.NullHandler()  # a daemon may have no stderr
    if sys.stderr is not None:
        handler = logging.StreamHandler()
        is_colourful = sys.stderr.isatty() and "NO_COLOR" not in os.environ
        handler.setFormatter(_JsonFormatter() if form == "json" else _Formatter(colours=is_colourful))
    logger.handlers = [handler]
    logger.propagate = False
    logger.setLevel(LEVELS.get(verbosity, logging.DEBUG))


def complain(text: str) -> None:
    """Say *text* on stderr, if there is one: `print` would take stdout instead."""
    if sys.stderr is not None:
        print(f"pfstorage: {text}", file=sys.stderr, flush=True)  # noqa: T201 - this is the place for it


class _Formatter(logging.Formatter):
    """``time level message``, one line each, a traceback only where it is asked for."""

    def __init__(self, *, colours: bool) -> None:
        super().__init__("%(asctime)s %(levelname)s %(message)s")
        self._palette = import_tidily("pfmisc").Colors if colours else None

    def format(self, record: logging.LogRecord) -> str:
        line = super().format(record)
        if self._palette is None:
            return line
        names = {logging.DEBUG: "CYAN", logging.INFO: "GREEN", logging.WARNING: "YELLOW"}
        colour = getattr(self._palette, names.get(record.levelno, "RED"))
        return f"{colour}{line}{self._palette.NO_COLOUR}"


class _JsonFormatter(logging.Formatter):
    """A JSON object a line: ``time`` in UTC, ``level``, ``message``, and the *fields* of the record if it has some."""

    def format(self, record: logging.LogRecord) -> str:
        moment = datetime.fromtimestamp(record.created, timezone.utc)
        line: dict[str, Any] = {"time": moment.isoformat(timespec="milliseconds"), "level": record.levelname}
        fields = getattr(record, "fields", None)
        line |= fields if fields else {"message": record.getMessage()}
        if record.exc_info:
            line["traceback"] = self.formatException(record.exc_info)
        return json.dumps(line, ensure_ascii=False)
