"""Loggers of one test."""

from __future__ import annotations

import logging


def logger_to(handler: logging.Handler) -> logging.Logger:
    """Return a logger of nobody else's, which writes to *handler* alone."""
    made = logging.getLogger(f"batches {id(handler)}")
    made.setLevel(logging.INFO)
    made.addHandler(handler)
    made.propagate = False
    return made
