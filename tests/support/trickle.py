"""A stream that gives few bytes at once."""

from __future__ import annotations

import io

from hypothesis import strategies as st


class Trickle(io.BytesIO):
    """A stream that gives no more than *step* bytes at once, as a connection may."""

    def __init__(self, data: bytes, step: int) -> None:
        super().__init__(data)
        self._step = step

    def read(self, size: int | None = -1, /) -> bytes:
        return super().read(min(size or 0, self._step))


STEPS = st.integers(1, 70)
