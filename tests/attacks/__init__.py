"""Requests that mean harm, by what they attack."""

from tests.attacks import conditions, files, heads, messages, orders

ROWS = [*conditions.ROWS, *files.ROWS, *heads.ROWS, *messages.ROWS, *orders.ROWS]
