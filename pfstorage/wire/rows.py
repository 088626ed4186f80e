"""The rows of a list in a reply."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from pfstorage.errors import PfstorageError, without_traceback
from pfstorage.runtime.unexpected import unexpected_error

Row = dict[str, Any] | str


class RowStream:
    """The rows of a list in a body, flat objects or texts, which can be read once.

    A failure ends the iteration, and *error* has it; the rows before it are valid. If *raises* is set, the iteration
    also raises it.
    """

    def __init__(self, rows: Iterable[Row]) -> None:
        self._rows = iter(rows)
        self.error: PfstorageError | None = None
        self.raises = False

    def __iter__(self) -> Iterator[Row]:
        try:
            yield from self._rows
        except PfstorageError as e:
            self.error = without_traceback(e)
        except Exception as e:  # noqa: BLE001 - it is logged
            self.error = unexpected_error(e, "a list")
        if self.error and self.raises:
            raise self.error

    def first(self, most: int) -> list[Row] | None:
        """Return all rows if there are at most *most*. Else return None, and keep all rows for the iteration."""
        rows = list(itertools.islice(self._rows, most + 1))
        if len(rows) <= most:
            return rows
        self._rows = itertools.chain(rows, self._rows)
        return None

    def close(self) -> None:
        """Release the source of the rows. No more rows follow."""
        self._rows = iter(())


class KnownRow(dict[str, Any]):
    """A row that many replies contain. *text* is its JSON, which never changes."""

    def __init__(self, members: Mapping[str, Any], text: str) -> None:
        super().__init__(members)
        self.text = text
        self._indented = "", text

    def indented(self, pad: str) -> str:
        """Return the JSON with its lines after the first indented by *pad*. Keep it for the next reply."""
        known, text = self._indented
        if known != pad:
            text = self.text.replace("\n", "\n" + pad)  # a text in JSON contains no newline
            self._indented = pad, text
        return text
