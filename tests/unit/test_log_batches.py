"""The log of a server: its lines are whole and in order, and no thread waits for it."""

from __future__ import annotations

import errno
import io
import logging
import os
import threading

from pfstorage.logs import batches as log_batches
from pfstorage.logs.batches import BatchHandler
from tests.support.logs import logger_to

PIPE = 65536


def test_lines_of_many_threads_are_whole_and_in_order() -> None:
    stream = io.StringIO()
    handler = BatchHandler(stream)
    log = logger_to(handler)

    def write(name: int) -> None:
        for number in range(500):
            log.info("%d %d", name, number)

    threads = [threading.Thread(target=write, args=(name,)) for name in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    handler.flush()
    lines = [tuple(map(int, line.split())) for line in stream.getvalue().splitlines()]
    assert sorted(lines) == [(name, number) for name in range(8) for number in range(500)]
    for name in range(8):
        assert [number for whose, number in lines if whose == name] == list(range(500))


def test_a_line_is_written_soon_and_without_being_asked_for() -> None:
    written = threading.Event()

    class Stream(io.StringIO):
        def flush(self) -> None:
            written.set()

    stream = Stream()
    log = logger_to(BatchHandler(stream))
    for text in ("one", "two"):
        log.info("%s", text)
        assert written.wait(30)
        written.clear()
    assert stream.getvalue() == "one\ntwo\n"


def test_nobody_waits_for_a_log_that_is_not_read() -> None:
    source, sink = os.pipe()
    with open(sink, "w", encoding="utf-8") as stream, open(source, encoding="utf-8") as reader:
        handler = BatchHandler(stream)
        log = logger_to(handler)
        texts = [f"{number} {'x' * 1000}" for number in range(4 * PIPE // 1000)]
        for text in texts:
            log.info("%s", text)  # it would wait for ever here: nobody reads
        ends = threading.Thread(target=handler.wait, args=(30,))
        ends.start()
        assert [reader.readline().rstrip() for _ in texts] == texts
        ends.join(30)
        assert not ends.is_alive()


def test_a_line_is_formatted_at_once() -> None:
    stream = io.StringIO()
    handler = BatchHandler(stream)
    files = ["a"]
    logger_to(handler).info("%s", files)
    files.append("b")
    handler.flush()
    assert stream.getvalue() == "['a']\n"


class Stuck(io.StringIO):
    """A stream whose reader takes nothing before `opens`."""

    def __init__(self) -> None:
        super().__init__()
        self.is_reached, self.opens = threading.Event(), threading.Event()

    def write(self, text: str) -> int:
        self.is_reached.set()
        self.opens.wait()
        return super().write(text)


def stuck() -> tuple[Stuck, BatchHandler, logging.Logger]:
    """Return a stream on which a line is stuck, and the handler and the logger that write to it."""
    stream = Stuck()
    handler = BatchHandler(stream, "note: {}".format)
    log = logger_to(handler)
    log.info("stuck")
    assert stream.is_reached.wait(30)
    return stream, handler, log


def test_unread_lines_are_dropped_counted_and_reported() -> None:
    stream, handler, log = stuck()
    for number in range(log_batches.MAX_LINES + 7):
        log.info("%d", number)  # it would wait for ever here if any line did
    assert not handler.wait(0)
    stream.opens.set()
    assert handler.wait(30)
    log.info("next")
    assert handler.wait(30)
    reported = "note: 7 lines of the log are lost: nobody read them in time"
    assert stream.getvalue().splitlines() == [
        "stuck",
        *map(str, range(log_batches.MAX_LINES)),
        reported,
        "next",
    ]


def test_long_lines_that_nobody_takes_are_bounded_by_their_size() -> None:
    stream, handler, log = stuck()
    size = log_batches.MAX_CHARACTERS // 8
    for _ in range(10):
        log.info("x" * size)
    log.info("short")  # there is room for it
    stream.opens.set()
    assert handler.wait(30)
    lines = [line for line in stream.getvalue().splitlines() if not line.startswith("x")]
    assert lines == ["stuck", "short", "note: 3 lines of the log are lost: nobody read them in time"]
    assert len(stream.getvalue()) < log_batches.MAX_CHARACTERS + 200


def test_lines_that_many_threads_lose_are_all_counted() -> None:
    stream, handler, log = stuck()
    each = log_batches.MAX_LINES // 4

    def write() -> None:
        for _ in range(each):
            log.info("line")

    threads = [threading.Thread(target=write) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    stream.opens.set()
    assert handler.wait(30)
    [reported] = [line for line in stream.getvalue().splitlines() if line.startswith("note")]
    assert reported.startswith(f"note: {8 * each - log_batches.MAX_LINES} lines")
    assert stream.getvalue().count("line\n") == log_batches.MAX_LINES


def test_a_stream_that_fails_once_is_written_to_again() -> None:
    class Stream(io.StringIO):
        fails = True

        def write(self, text: str) -> int:
            if self.fails:
                raise OSError(errno.ENOSPC, "No space left on device")
            return super().write(text)

    stream = Stream()
    handler = BatchHandler(stream)
    log = logger_to(handler)
    log.info("lost")
    assert handler.wait(30)
    stream.fails = False
    log.info("next")
    assert handler.wait(30)
    assert stream.getvalue() == "next\n"


def test_a_line_that_can_not_be_made_harms_no_other() -> None:
    stream = io.StringIO()
    handler = BatchHandler(stream)
    log = logger_to(handler)
    log.info("%d", "no number")
    log.info("next")
    handler.flush()
    assert stream.getvalue() == "next\n"
