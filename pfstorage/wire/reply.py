"""The reply to a message, and how it is written."""

from __future__ import annotations

import io
import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

from pfstorage.errors import PfstorageError
from pfstorage.wire.json_text import dumps, object_chunks
from pfstorage.wire.packed import Packed, PackedStrings
from pfstorage.wire.rows import Row, RowStream

OUTCOME = ("status", "msg", "error")


class Writable(Protocol):
    """A file that takes texts."""

    def write(self, text: str, /) -> object: ...


_LONG = (RowStream, PackedStrings, Packed)
# The usual length of a row in JSON, in characters.
_ROW = 256


@dataclass
class Reply:
    """The reply to a message: its *body*, which becomes JSON, and the *error* that it reports.

    In *body*, or in an object in it, a list may be a `PackedStrings` or a `RowStream`, and an object a `Packed`.
    *is_accepted* means that a job will do the work later. *partial_error* is the error in the body of a reply that
    is not an error itself: a part of the work has failed.
    """

    body: dict[str, Any]
    error: PfstorageError | None = None
    is_accepted: bool = False
    partial_error: PfstorageError | None = None
    _notes: list[Callable[[], None]] = field(default_factory=list, init=False, repr=False, compare=False)
    _warnings: Callable[[], list[str]] = field(default=list, init=False, repr=False, compare=False)
    _is_plain: bool = field(default=False, init=False, repr=False, compare=False)

    @classmethod
    def from_error(cls, error: PfstorageError) -> Reply:
        return cls(_outcome_of(error), error)

    def settle(self, most: int | None = None) -> None:
        """Replace `RowStream`, `PackedStrings` and `Packed` in the body by lists and dicts of up to *most* rows.

        Longer ones stay. None is no limit. Raise the error of a `RowStream` that fails meanwhile.
        """
        if not self.is_plain:
            limit = sys.maxsize - 1 if most is None else most
            rows = {id(stream): stream.first(limit) for stream in _streams(self.body)}
            # a `PackedStrings` may grow while rows are read
            self.body = _settled(self.body, rows, -1 if None in rows.values() else limit)
            if not _streams(self.body):
                self._add_warnings()
            self._is_plain = not _longs(self.body)

    @property
    def is_plain(self) -> bool:
        """Whether the body has no long values, which are better written in pieces."""
        self._is_plain = self._is_plain or not _longs(self.body)  # a plain body stays plain
        return self._is_plain

    def warn(self, warnings: Callable[[], list[str]]) -> None:
        """Add the result of *warnings* to the body, unless it is empty, when the streams of the body have been read."""
        self._warnings = warnings
        if self.is_plain or not _streams(self.body):
            self._add_warnings()

    def _add_warnings(self) -> None:
        if warnings := self._warnings():
            self.body["warnings"] = warnings

    def when_known(self, note: Callable[[], None]) -> None:
        """Call *note* when the outcome is known: now, or when the streams of the body are written."""
        if self.is_plain or not _streams(self.body):
            note()
        else:
            self._notes.append(note)

    def to_json(self) -> str:
        """Return the text that `write` writes."""
        if self._is_plain or not _streams(self.body):
            return dumps(self.body, "")
        text = io.StringIO()
        self.write(text)
        return text.getvalue()

    def write(self, file: Writable, end: str = "") -> bool:
        """Write the body as 2.x did, followed by *end*. Return whether its status is true.

        The body is JSON in ASCII, indented by four, in the order of insertion, in pieces of up to `ROWS_AT_ONCE`
        rows. If it has a `RowStream`, ``status``, ``msg`` and ``error`` are last, because they depend on it: an error
        of the stream becomes the error of the reply, and the JSON is complete. Raise the errors of *file*.
        """
        for piece in object_chunks(self._members(), ""):
            file.write(piece)
        file.write(end)
        self._note()
        return bool(self.body.get("status"))

    def write_whole(self, write: Callable[[str], object]) -> None:
        """Pass the pieces of the body to *write*, in its own order.

        Raise the error of a `RowStream` that fails; the JSON is incomplete then.
        """
        streams = _streams(self.body)
        for stream in streams:
            stream.raises = True
        try:
            for piece in object_chunks(self._members_in_order(), ""):
                write(piece)
        finally:
            self.error = next((stream.error for stream in streams if stream.error), self.error)
            self.close()

    def close(self) -> None:
        """Close the streams of the body, whether they have been read or not."""
        for stream in _streams(self.body):
            stream.close()
        self._note()

    def _note(self) -> None:
        notes, self._notes = self._notes, []
        for note in notes:
            note()

    def _members_in_order(self) -> Iterator[tuple[str, Any]]:
        yield from (
            (name, self.body[name]) for name in [*self.body]
        )  # a value may be final only when the rows before it were read
        if "warnings" not in self.body:  # reading the rows may cause warnings
            self._add_warnings()
            yield from ((name, self.body[name]) for name in ("warnings",) if name in self.body)

    def _members(self) -> Iterator[tuple[str, Any]]:
        streams = _streams(self.body)
        late = ("warnings", *OUTCOME) if streams else ()
        yield from ((name, value) for name, value in self.body.items() if name not in late)
        for stream in streams:
            if stream.error:
                self.error = stream.error
                self.body.update(_outcome_of(stream.error))
        if streams:
            self._add_warnings()
        yield from ((name, self.body[name]) for name in late if name in self.body)


def _outcome_of(error: PfstorageError) -> dict[str, Any]:
    return {"status": False, "msg": str(error), "error": dict(error.facts)}


def _streams(body: dict[str, Any]) -> list[RowStream]:
    return [each for each in _longs(body) if isinstance(each, RowStream)]


def _longs(body: dict[str, Any]) -> list[RowStream | PackedStrings | Packed]:
    found: list[RowStream | PackedStrings | Packed] = []
    dicts = [body]
    for each in dicts:
        for value in each.values():
            if isinstance(value, dict):
                dicts.append(value)
            elif type(value) in _LONG:  # `isinstance` with an abstract class is slow: it runs Python code
                found.append(value)
    return found


def _settled(value: Any, rows: Mapping[int, list[Row] | None], most: int) -> Any:
    """Replace the streams in *value* by their *rows* (by `id`), and each `PackedStrings` of up to *most* by a list."""
    if isinstance(value, dict):
        return {name: _settled(each, rows, most) for name, each in value.items()}
    if isinstance(value, RowStream):
        found = rows[id(value)]
        return value if found is None else found
    if type(value) is Packed:
        return value.value if value.size <= _ROW * most else value
    return list(value) if type(value) is PackedStrings and len(value) <= most else value
