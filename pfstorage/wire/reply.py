"""The reply, and the values that keep a long one small in memory.

A reply is JSON as 2.x wrote it, ``json.dumps(body, indent=4)``. With an indent the module
json works in Python, a token at a time; here a row is made at once, to the same text.
"""

from __future__ import annotations

import io
import itertools
import json
import logging
import math
import sys
from array import array
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from json.encoder import encode_basestring_ascii as quoted
from typing import Any, Protocol, overload

from pfstorage.errors import PfstorageError, bare
from pfstorage.runtime.fair_share import LOOPS
from pfstorage.runtime.unexpected import unforeseen
from pfstorage.wire.packed import Packed

log = logging.getLogger(__name__)

Row = dict[str, Any] | str
INDENT = "    "
ROWS_AT_ONCE = 256
_CONSTANTS = {None: "null", True: "true", False: "false"}
OUTCOME = ("status", "msg", "error")
_encode = json.JSONEncoder(indent=len(INDENT)).encode


class PackedStrings(Sequence[str]):
    """Texts in the order in which they were appended, in as many bytes as they have in UTF-8 and 8 each.

    They are equal to a list of the same texts. Lone surrogates, which a local name may have,
    come back as they were.
    """

    def __init__(self, texts: Iterable[str] = ()) -> None:
        self._bytes = bytearray()
        self._ends = array("Q")
        for text in texts:
            self.append(text)

    def append(self, text: str) -> None:
        self._bytes += text.encode("utf-8", "surrogatepass")
        self._ends.append(len(self._bytes))

    def __len__(self) -> int:
        return len(self._ends)

    @overload
    def __getitem__(self, place: int) -> str: ...

    @overload
    def __getitem__(self, place: slice) -> list[str]: ...

    def __getitem__(self, place: int | slice) -> str | list[str]:
        places = range(len(self))[place]
        return self._at(places) if isinstance(places, int) else [self._at(each) for each in places]

    def _at(self, place: int) -> str:
        start = self._ends[place - 1] if place else 0
        return self._bytes[start : self._ends[place]].decode("utf-8", "surrogatepass")

    def __iter__(self) -> Iterator[str]:
        return map(self._at, range(len(self)))

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, PackedStrings | list):
            return NotImplemented
        return len(self) == len(other) and all(mine == its for mine, its in zip(self, other, strict=True))

    __hash__ = None  # type: ignore[assignment]  # what is appended changes it

    def __repr__(self) -> str:
        return f"Texts({list(self)!r})"


class RowStream:
    """The rows of a list in a body, flat objects or texts, which come one by one and are read once.

    What breaks them off ends the iteration and is then *error*: the rows that came are good. From one that
    *raises*, it passes on.
    """

    def __init__(self, rows: Iterable[Row]) -> None:
        self._rows = iter(rows)
        self.error: PfstorageError | None = None
        self.raises = False

    def __iter__(self) -> Iterator[Row]:
        try:
            yield from self._rows
        except PfstorageError as e:
            self.error = bare(e)
        except Exception as e:  # noqa: BLE001 - it is logged
            self.error = unforeseen(e, "a list")
        if self.error and self.raises:
            raise self.error

    def first(self, most: int) -> list[Row] | None:
        """Return all rows if they are *most* at most; None if there are more, which are all yet to come."""
        rows = list(itertools.islice(self._rows, most + 1))
        if len(rows) <= most:
            return rows
        self._rows = itertools.chain(rows, self._rows)
        return None

    def close(self) -> None:
        """Let go what the rows come from: no more of them are wanted."""
        self._rows = iter(())


class KnownRow(dict[str, Any]):
    """A row of a list that is written again and again: *text* is its JSON, and stays that."""

    def __init__(self, members: Mapping[str, Any], text: str) -> None:
        super().__init__(members)
        self.text = text


class Writable(Protocol):
    """A file that takes texts."""

    def write(self, text: str, /) -> object: ...


_LISTS = (list, tuple, RowStream, PackedStrings)
_LONG = (RowStream, PackedStrings, Packed)
_ROW = 256
"""Characters that a row has in JSON, more or less."""


@dataclass
class Reply:
    """What goes back: *body* as JSON, and the error it tells of, if it tells of one.

    In *body*, or in an object in it, a list may be a `PackedStrings` or a `RowStream`, and an object a `Packed`.
    *is_accepted*
    tells that the work was taken on, and is yet to be done.
    """

    body: dict[str, Any]
    error: PfstorageError | None = None
    is_accepted: bool = False
    _notes: list[Callable[[], None]] = field(default_factory=list, init=False, repr=False, compare=False)
    _warnings: Callable[[], list[str]] = field(default=list, init=False, repr=False, compare=False)
    _is_plain: bool = field(default=False, init=False, repr=False, compare=False)

    @classmethod
    def from_error(cls, error: PfstorageError) -> Reply:
        return cls(_outcome_of(error), error)

    def settle(self, most: int | None = None) -> None:
        """Make plain what is a `RowStream`, `PackedStrings` or `Packed` in the body, but for one with more than
        *most* rows.

        Raise what breaks a `RowStream` off until then.
        """
        self._is_plain = not _longs(self.body)
        if not self._is_plain:
            limit = sys.maxsize - 1 if most is None else most
            rows = {id(stream): stream.first(limit) for stream in _streams(self.body)}
            # a `PackedStrings` may grow as long as rows are read
            self.body = _settled(self.body, rows, -1 if None in rows.values() else limit)
            if not _streams(self.body):
                self._tell_warnings()
            self._is_plain = not _longs(self.body)

    @property
    def is_long(self) -> bool:
        """Whether the body has lists that are better written a piece at a time."""
        return not self._is_plain and bool(_longs(self.body))

    def warn(self, warnings: Callable[[], list[str]]) -> None:
        """Add *warnings* to the body, if there are any by the time that its streams have been read."""
        self._warnings = warnings
        if self._is_plain or not _streams(self.body):
            self._tell_warnings()

    def _tell_warnings(self) -> None:
        if warnings := self._warnings():
            self.body["warnings"] = warnings

    def when_known(self, note: Callable[[], None]) -> None:
        """Call *note* when it is known what the reply says: now, or when its streams are written."""
        if self._is_plain or not _streams(self.body):
            note()
        else:
            self._notes.append(note)

    def to_json(self) -> str:
        """Return what `write` writes."""
        if self._is_plain or not _streams(self.body):
            return text_of(self.body, "")
        text = io.StringIO()
        self.write(text)
        return text.getvalue()

    def write(self, file: Writable, end: str = "") -> bool:
        """Write the body as 2.x did, and return whether its status is true.

        That is JSON indented by four, in the order of insertion, in ASCII, and *end*. It is
        written in pieces of `ROWS_AT_ONCE` rows at most. Where the body has a `RowStream`,
        ``status``, ``msg`` and ``error`` come last, since they may depend on it: what breaks it
        off becomes the error of the reply, and the JSON is whole all the same.
        Raise what *file* raises.
        """
        for piece in _object(self._members(), ""):
            file.write(piece)
        file.write(end)
        self._note()
        return bool(self.body.get("status"))

    def write_whole(self, write: Callable[[str], object]) -> None:
        """Have *write* write the body in its own order, piece by piece. What breaks a `RowStream` off passes through.

        What was written by then is no whole JSON.
        """
        streams = _streams(self.body)
        for stream in streams:
            stream.raises = True
        try:
            for piece in _object(self._members_in_order(), ""):
                write(piece)
        finally:
            self.error = next((stream.error for stream in streams if stream.error), self.error)
            self.close()

    def close(self) -> None:
        """Let go what is left of the streams; nothing more of it will be known."""
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
        )  # which may be told only when rows were read
        if "warnings" not in self.body:  # which may come with the rows
            self._tell_warnings()
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
            self._tell_warnings()
        yield from ((name, self.body[name]) for name in late if name in self.body)


def _outcome_of(error: PfstorageError) -> dict[str, Any]:
    return {"status": False, "msg": str(error), "error": dict(error.facts)}


def _streams(body: dict[str, Any]) -> list[RowStream]:
    return [each for each in _longs(body) if isinstance(each, RowStream)]


def _longs(body: dict[str, Any]) -> list[RowStream | PackedStrings | Packed]:
    found: list[RowStream | PackedStrings | Packed] = []
    for value in body.values():
        if isinstance(value, dict):
            found += _longs(value)
        elif type(value) in _LONG:  # what is an abstract class asks in Python whether it has an instance
            found.append(value)
    return found


def _settled(value: Any, rows: Mapping[int, list[Row] | None], most: int) -> Any:
    """Return *value* with the *rows* of its streams, by their `id`, and a list of each `PackedStrings` of *most*
    at most."""
    if isinstance(value, dict):
        return {name: _settled(each, rows, most) for name, each in value.items()}
    if isinstance(value, RowStream):
        found = rows[id(value)]
        return value if found is None else found
    if type(value) is Packed:
        return value.value if value.size <= _ROW * most else value
    return list(value) if type(value) is PackedStrings and len(value) <= most else value


def _pieces(value: Any, pad: str) -> Iterator[str]:
    """Yield the JSON of *value*, which stands on a line that is indented by *pad*."""
    if isinstance(value, dict):
        yield from _object(value.items(), pad)
    elif isinstance(value, _LISTS):
        yield from _array(iter(value), pad)
    elif type(value) is Packed:
        yield from value.pieces(pad)
    else:
        yield text_of(value, pad)


def _object(members: Iterable[tuple[str, Any]], pad: str) -> Iterator[str]:
    inner = pad + INDENT
    before = "{"
    for name, value in members:
        yield f"{before}\n{inner}{_name(name)}: "
        yield from _pieces(value, inner)
        before = ","
    yield "{}" if before == "{" else f"\n{pad}}}"


def _array(rows: Iterator[Any], pad: str) -> Iterator[str]:
    inner = pad + INDENT
    before = "["
    try:
        while batch := [text_of(row, inner) for row in itertools.islice(rows, ROWS_AT_ONCE)]:
            yield f"{before}\n{inner}" + f",\n{inner}".join(batch)
            before = ","
            if len(batch) == ROWS_AT_ONCE:
                LOOPS.pause()  # a long list of one reply must not delay the short replies of others
    finally:
        LOOPS.rest()
    yield "[]" if before == "[" else f"\n{pad}]"


def text_of(value: Any, pad: str = "") -> str:
    """Return the JSON of *value* in one piece. It stands on a line that is indented by *pad*."""
    kind = type(value)
    if kind is str:
        return quoted(value)
    if kind is int or (kind is float and math.isfinite(value)):
        return repr(value)
    if value is None or kind is bool:
        return _CONSTANTS[value]
    inner = pad + INDENT
    if isinstance(value, dict) and value and kind is not KnownRow:
        # most members are texts: each call that they are spared shows
        members = [
            f"{quoted(name) if type(name) is str else _name(name)}: "
            f"{quoted(each) if type(each) is str else text_of(each, inner)}"
            for name, each in value.items()
        ]
        return f"{{\n{inner}" + f",\n{inner}".join(members) + f"\n{pad}}}"
    if isinstance(value, _LISTS):
        rows = f",\n{inner}".join([text_of(row, inner) for row in value])
        return f"[\n{inner}{rows}\n{pad}]" if rows else "[]"
    text = value.text if kind in (Packed, KnownRow) else _encode(value)
    return text.replace("\n", "\n" + pad)  # within a text, JSON has no newline


def _name(key: object) -> str:
    """Return the name of a member; of a key that is no text, json knows best what name it makes."""
    return quoted(key if isinstance(key, str) else next(iter(json.loads(json.dumps({key: 0})))))
