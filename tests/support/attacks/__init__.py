"""Hostile requests, by their targets."""

from tests.support.attacks import bounds, conditions, files, heads, messages, orders

ROWS = [*bounds.ROWS, *conditions.ROWS, *files.ROWS, *heads.ROWS, *messages.ROWS, *orders.ROWS]
