"""Loggers of one test."""

from __future__ import annotations

import logging


def logger_to(handler: logging.Handler) -> logging.Logger:
    """Return an unshared logger, which writes only to *handler*."""
    made = logging.getLogger(f"batches {id(handler)}")
    made.setLevel(logging.INFO)
    made.addHandler(handler)
    made.propagate = False
    return made
