"""Keep long values small in memory: compressed JSON objects, and lists of texts."""

from __future__ import annotations

import functools
import json
import zlib
from array import array
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, overload

_LEVEL = 1  # the fastest level already reduces names in JSON to a tenth
_CHUNK = 64 * 1024


class TooLongError(Exception):
    """A text has more characters than it may have."""


class Packed(Mapping[str, Any]):
    """A JSON object that stays compressed until a member is read, which decodes all of it.

    *data* is the compressed text of *size* characters.
    """

    def __init__(self, data: bytes, size: int) -> None:
        self.data = data
        self.size = size

    @classmethod
    def of_text(cls, text: str, most: int) -> Packed:
        packer = Packer(most)
        packer.write(text)
        return packer.packed()

    @classmethod
    def checked(cls, data: object, most: int) -> Packed:
        """Check *data* from an untrusted place. Raise `ValueError` if it is damaged or has over *most* characters."""
        if not isinstance(data, bytes):
            raise ValueError("it is not compressed")
        size = 0
        try:
            for piece in _decompressed(data):
                if not size and not piece.startswith("{"):
                    raise ValueError("it is not a JSON object")
                size += len(piece)
                if size > most:
                    raise ValueError(f"it is longer than {most} characters")
        except (zlib.error, EOFError) as e:
            raise ValueError("its bytes have changed") from e
        return cls(data, size)

    @property
    def text(self) -> str:
        return "".join(self.pieces())

    def pieces(self, pad: str = "") -> Iterator[str]:
        """Yield the text. Indent the lines after the first by *pad* more."""
        for piece in _decompressed(self.data):
            yield piece.replace("\n", "\n" + pad)  # a text in JSON contains no newline

    def indented(self, pad: str) -> str:
        """Return the text with its lines after the first indented by *pad* more."""
        return "".join(self.pieces(pad))

    @functools.cached_property
    def value(self) -> dict[str, Any]:
        """The decoded object. Raise `ValueError` if the text is not a JSON object."""
        decoded = json.loads(self.text)
        if not isinstance(decoded, dict):
            raise ValueError("it is not a JSON object")
        return decoded

    def __getitem__(self, name: str) -> Any:
        return self.value[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self.value)

    def __len__(self) -> int:
        return len(self.value)


class Packer:
    """A compressor of the text of a `Packed`, written in pieces, of *most* characters at most."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._size = 0
        self._compressor = zlib.compressobj(_LEVEL)
        self._data = bytearray()

    def write(self, text: str) -> int:
        """Add *text*, which is ASCII. Raise `TooLongError`."""
        self._size += len(text)
        if self._size > self._most:
            raise TooLongError
        self._data += self._compressor.compress(text.encode("ascii"))
        return len(text)

    def packed(self) -> Packed:
        self._data += self._compressor.flush()
        return Packed(bytes(self._data), self._size)


def _decompressed(data: bytes) -> Iterator[str]:
    """Yield the text in pieces. Raise `zlib.error`, `EOFError` or `ValueError` if *data* is damaged or not ASCII."""
    decompressor = zlib.decompressobj()
    while not decompressor.eof:
        piece = decompressor.decompress(data, _CHUNK)
        data = decompressor.unconsumed_tail
        if not (piece or data):
            raise EOFError
        yield piece.decode("ascii")


class PackedStrings(Sequence[str]):
    """A list of texts that takes the bytes of their UTF-8 and 8 bytes for each.

    It is equal to a list of the same texts. It preserves lone surrogates, which local names may contain.
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

    __hash__ = None  # type: ignore[assignment]  # the list is mutable

    def __repr__(self) -> str:
        return f"PackedStrings({list(self)!r})"
