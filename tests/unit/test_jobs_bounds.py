"""The limits of jobs: running jobs, bytes of the file, memory, and the time of reads."""

from __future__ import annotations

import contextlib
import io
import json
import random
import threading
import zlib
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from pfstorage.errors import BusyError, SettingsError, TooLargeError
from pfstorage.jobs import finished
from pfstorage.jobs.model import JobLimits, JobRequest
from pfstorage.jobs.queue import LARGE_JOB, JobQueue, QueuedJob
from pfstorage.jobs.scheduler import JobScheduler
from pfstorage.runtime.cancellation import CancellationToken
from pfstorage.server.endpoints.events import _EventWriter
from pfstorage.server.options import ServerOptions
from pfstorage.transfer import Progress
from pfstorage.wire.packed import Packed, Packer, TooLongError
from pfstorage.wire.reply import Reply
from tests.support.waiting import LONG, until


def job_request(text: str, owner: str = "", **more: Any) -> JobRequest:
    return JobRequest({"action": "objPull", "meta": {"path": text}}, owner, **more)


def noise(number: int, size: int) -> str:
    """Return a text that is not compressed by more than half."""
    return random.Random(number).randbytes(size // 2).hex()


class Held:
    """Performs each job request until it is released, and notes the owners of those that have begun."""

    def __init__(self) -> None:
        self.begun: list[str] = []
        self.free = threading.Event()

    def __call__(
        self, given: JobRequest, cancellation: CancellationToken, _: Callable[[Progress], None]
    ) -> Reply:
        self.begun.append(f"{given.owner} {given.message['meta']['path'][:8]}")
        while not (self.free.wait(0.01) or cancellation.is_cancelled):
            pass
        return Reply({"status": not cancellation.is_cancelled})


def done(given: JobRequest, cancellation: CancellationToken, progress: Callable[[Progress], None]) -> Reply:
    """Reply with the path of the message."""
    return Reply({"status": True, "names": [given.message["meta"]["path"]]})


@contextlib.contextmanager
def working(perform: Any, directory: Path | str = "", **options: Any) -> Iterator[JobScheduler]:
    jobs = JobScheduler(perform, str(directory), **options)
    try:
        jobs.start()
        yield jobs
    finally:
        jobs.close(LONG)


# the order of owners


def queue_of(*places: str) -> JobQueue:
    queue = JobQueue()
    for number, owner in enumerate(places):
        queue.add(QueuedJob(f"{owner}{number}", owner, 1, LARGE_JOB + 1 if owner.isupper() else 1))
    return queue


def begun(queue: JobQueue, most: int, max_running_per_owner: int | None = None) -> list[QueuedJob]:
    """Give out places until none is left. Return the jobs that have them."""
    at_work: list[QueuedJob] = []
    while place := queue.next(at_work, most, max_running_per_owner or most):
        queue.take(place)
        at_work.append(place)
    return at_work


def test_one_owner_may_use_all_places() -> None:
    assert [place.job_id for place in begun(queue_of(*"aaaaaa"), 4)] == ["a0", "a1", "a2", "a3"]


def test_four_costly_jobs_of_one_owner_do_not_hold_those_of_others() -> None:
    queue = queue_of(*"aaaaaa")
    at_work = begun(queue, 4)
    for number, owner in enumerate("bbcdef"):
        queue.add(QueuedJob(f"{owner}{number}", owner, 1, 1))
    more = []
    while place := queue.next(at_work, 4, 4):
        queue.take(place)
        at_work.append(place)
        more.append(place.owner)
    assert more == ["b", "c", "d"]
    at_work = at_work[2:]  # two of the first are over: the others come before the fifth of that owner
    assert len(at_work) == 5
    place = queue.next(at_work, 4, 4)
    assert place is not None
    assert place.owner == "e"


def test_owners_alternate_in_one_place() -> None:
    queue, order_of = queue_of(*"aaab"), []
    while place := queue.next([], 1, 1):
        queue.take(place)
        order_of.append(place.owner)
        if len(order_of) == 2:
            queue.add(QueuedJob("b9", "b", 1, 1))
    assert order_of == ["a", "b", "a", "b", "a"]


def test_an_owner_has_no_more_places_than_the_flag_says() -> None:
    assert [place.owner for place in begun(queue_of(*"aaaabb"), 4, 2)] == ["a", "b", "a", "b"]
    assert [place.owner for place in begun(queue_of(*"aaaa"), 4, 2)] == ["a", "a"]


def test_each_owner_runs_one_job_with_a_large_message() -> None:
    queue = JobQueue()
    for number, length in enumerate([LARGE_JOB + 1, LARGE_JOB + 1, 1, LARGE_JOB]):
        queue.add(QueuedJob(str(number), "a", 1, length))
    queue.add(QueuedJob("other", "b", 1, LARGE_JOB + 1))
    assert [place.job_id for place in begun(queue, 4)] == ["0", "other", "2", "3"]


def test_a_second_owner_does_not_wait_for_the_first() -> None:
    held = Held()

    def perform(
        given: JobRequest, cancellation: CancellationToken, progress: Callable[[Progress], None]
    ) -> Reply:
        return (
            held(given, cancellation, progress)
            if given.owner == "ann"
            else done(given, cancellation, progress)
        )

    with working(perform, max_running=4) as jobs:
        for number in range(8):
            jobs.submit(job_request(str(number), "ann"))
        until(lambda: len(held.begun) == 4)
        for owner in ("bob", "cyd"):
            assert jobs.status(jobs.submit(job_request("x", owner)), LONG).state == "done"
        assert len(held.begun) == 4
        held.free.set()


# bytes


def test_the_queued_bytes_of_one_owner_are_bounded(
    tmp_path: Path,
) -> None:
    jobs = JobScheduler(done, str(tmp_path / "state"), max_bytes_per_owner=10_000)
    first = jobs.submit(job_request(noise(0, 8000), "ann", jid="0"))
    jobs.submit(job_request(noise(1, 8000), "ann"))
    with pytest.raises(BusyError, match=r"2 of your jobs are waiting, with \d{4} bytes"):
        jobs.submit(job_request(noise(2, 8000), "ann"))
    jobs.submit(job_request("x", "ann"))
    jobs.submit(job_request(noise(3, 8000), "bob"))
    assert jobs.submit(job_request(noise(0, 8000), "ann", jid="0")) == first
    with pytest.raises(TooLargeError, match="--maxJobBytes"):
        jobs.submit(job_request(noise(4, 30_000), "cyd"))
    jobs.cancel(first)
    jobs.submit(job_request(noise(2, 8000), "ann"))
    jobs.close(0)
    again = JobScheduler(done, str(tmp_path / "state"), max_bytes_per_owner=10_000)
    again.start()
    until(lambda: again.counts()["queued"] == 0)
    again.close(LONG)


def test_the_bounds_hold_for_jobs_of_an_earlier_process(tmp_path: Path) -> None:
    jobs = JobScheduler(done, str(tmp_path / "state"))
    for number in range(3):
        jobs.submit(job_request(noise(number, 8000), "ann"))
    jobs.close(0)
    held = Held()
    with working(held, tmp_path / "state", max_running=1, max_bytes_per_owner=10_000) as jobs:
        until(lambda: bool(held.begun))
        with pytest.raises(BusyError, match="2 of your jobs"):
            jobs.submit(job_request(noise(9, 8000), "ann"))
        held.free.set()


def test_the_queued_bytes_of_all_owners_are_bounded() -> None:
    jobs = JobScheduler(done, max_bytes_per_owner=10_000, full_owners=2)
    for owner in "abcd":
        jobs.submit(job_request(noise(ord(owner), 8000), owner))
    with pytest.raises(BusyError):
        jobs.submit(job_request(noise(0, 8000), "e"))
    jobs.close(0)


def run_jobs(jobs: JobScheduler, owner: str, count: int, size: int) -> list[str]:
    ids = []
    for number in range(count):
        ids.append(jobs.submit(job_request(noise(number, size), owner)))
        assert jobs.status(ids[-1], LONG).state in ("done", "failed")
    return ids


def test_the_finished_bytes_of_one_owner_are_bounded(tmp_path: Path) -> None:
    with working(done, tmp_path / "state", max_bytes_per_owner=100_000) as jobs:
        kept = run_jobs(jobs, "bob", 2, 8000)
        ids = run_jobs(jobs, "ann", 30, 16_000)  # of each, message and reply have half as much
        found = [job.id for job in jobs.list(100, "ann")]
        assert found == ids[: -len(found) - 1 : -1]
        assert 4 <= len(found) <= 10
        assert [job.id for job in jobs.list(100, "bob")] == kept[::-1]


def test_many_finished_jobs_do_not_remove_those_of_other_owners(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(finished, "SWEEP_INTERVAL", 0)
    with working(done, tmp_path / "state", max_finished=10) as jobs:
        kept = run_jobs(jobs, "bob", 3, 10)
        ids = run_jobs(jobs, "ann", 20, 10)
        assert [job.id for job in jobs.list(100, "bob")] == kept[::-1]
        assert [job.id for job in jobs.list(100, "ann")] == ids[:-8:-1]


def test_the_owners_with_the_most_bytes_lose_their_oldest_jobs(tmp_path: Path) -> None:
    with working(done, tmp_path / "state", max_bytes_per_owner=100_000, full_owners=1) as jobs:
        kept = run_jobs(jobs, "bob", 1, 8000)
        run_jobs(jobs, "ann", 12, 16_000)
        run_jobs(jobs, "cyd", 12, 16_000)
        assert [job.id for job in jobs.list(100, "bob")] == kept
        assert len(jobs.list(100, "ann")) >= 2
        assert len(jobs.list(100, "cyd")) >= 2
        assert len(jobs.list(100)) <= 11


@pytest.mark.parametrize("size", ["lots", "-5", "5X", ""])
def test_an_invalid_size_is_refused(size: str) -> None:
    if not size:
        assert ServerOptions.from_args({"maxJobBytes": size}).max_job_bytes == JobLimits.max_bytes_per_owner
        return
    with pytest.raises(SettingsError, match="--maxJobBytes"):
        ServerOptions.from_args({"maxJobBytes": size})


def test_a_long_reason_is_cut_in_the_list_and_whole_in_the_reply(tmp_path: Path) -> None:
    text = noise(1, 200_000)

    def perform(
        given: JobRequest, cancellation: CancellationToken, progress: Callable[[Progress], None]
    ) -> Reply:
        return Reply({"status": False, "msg": text})

    with working(perform, tmp_path / "state") as jobs:
        over = jobs.status(jobs.submit(job_request("x")), LONG)
        assert (over.state, over.reason, over.reply) == (
            "failed",
            text[:1000],
            {"status": False, "msg": text},
        )


# time


def test_reads_do_not_wait_for_writes(tmp_path: Path) -> None:
    with working(done, tmp_path / "state") as jobs:
        job = jobs.submit(job_request("x", "ann", jid="1"))
        assert jobs.status(job, LONG).state == "done"
        asked = {
            "status": lambda: jobs.status(job).state,
            "list": lambda: [each.id for each in jobs.list(10)],
            "find": lambda: jobs.find("1", "ann"),
            "counts": lambda: jobs.counts()["done"],
            "events": lambda: [event["state"] for event in jobs.events(job)],
        }
        with jobs._lock, ThreadPoolExecutor(1) as pool:
            found = {name: pool.submit(ask).result(LONG) for name, ask in asked.items()}
    assert found == {"status": "done", "list": [job], "find": job, "counts": 1, "events": ["done"]}


def test_reads_do_not_wait_for_reads(tmp_path: Path) -> None:
    with working(done, tmp_path / "state") as jobs:
        job = jobs.submit(job_request("x"))
        assert jobs.status(job, LONG).state == "done"
        with jobs._store._database.read(), ThreadPoolExecutor(1) as pool:
            assert pool.submit(jobs.status, job).result(LONG).state == "done"


# long replies


NAMES = [noise(number, 90) for number in range(2000)]
LONG_REPLY = {"status": True, "names": NAMES, "in it": {"a": [{"b": 1}], "c": "two  blanks\n and more"}}


@pytest.fixture
def packed() -> Packed:
    packer = Packer(10**6)
    Reply(dict(LONG_REPLY)).write(packer)
    return packer.packed()


def test_a_packed_object_is_written_as_the_object_is(packed: Packed) -> None:
    assert packed == LONG_REPLY
    assert len(packed.data) < packed.size
    body = {"status": True, "reply": packed, "more": {"reply": packed}}
    plain = {"status": True, "reply": LONG_REPLY, "more": {"reply": LONG_REPLY}}
    expected = json.dumps(plain, indent=4)
    assert Reply(dict(body)).to_json() == expected
    out = io.StringIO()
    Reply(dict(body)).write(out)
    assert out.getvalue() == expected
    reply = Reply(dict(body))
    reply.settle(256)
    assert not reply.is_plain
    reply.settle()
    assert reply.body == plain
    assert type(reply.body["reply"]) is dict


def test_a_small_packed_object_is_settled_with_few_rows() -> None:
    reply = Reply({"reply": Packed.of_text('{"a": 1}', 100)})
    reply.settle(256)
    assert reply.is_plain
    assert type(reply.body["reply"]) is dict


@pytest.mark.parametrize(
    "data", [b"", b"x", "text", None, 5, bytes(100), b"cut", b"flipped", b"a list", b"no ASCII", b"a bomb"]
)
def test_a_packed_object_that_was_changed_is_refused(packed: Packed, data: Any) -> None:
    made = {
        b"cut": packed.data[:-5],
        b"flipped": packed.data[:500] + bytes([packed.data[500] ^ 1]) + packed.data[501:],
        b"a list": Packed.of_text("[]", 10).data,
        b"no ASCII": zlib.compress(b'{"\xff"'),
        b"a bomb": Packed.of_text("{" + " " * 10**7, 10**8).data,
    }
    assert Packed.checked(packed.data, 10**6) == LONG_REPLY
    with pytest.raises(ValueError, match=r"it is|its bytes|ascii"):
        Packed.checked(made.get(data, data) if isinstance(data, bytes) else data, 10**6)


def test_a_text_that_is_too_long_is_not_packed() -> None:
    with pytest.raises(TooLongError):
        Packed.of_text("{" + " " * 100, 100)


@pytest.mark.parametrize("size", [1, 2, 3, 7, 64, 10**6])
def test_an_event_is_one_line_for_any_pieces(size: int) -> None:
    out = io.BytesIO()
    line, text = _EventWriter(out), json.dumps({**LONG_REPLY, "names": NAMES[:20]}, indent=4)
    for start in range(0, len(text), size):
        line.write(text[start : start + size])
    line.end()
    said = out.getvalue().decode()
    assert (said[:6], said[-2:], said.count("\n")) == ("data: ", "\n\n", 2)
    assert json.loads(said[6:]) == {**LONG_REPLY, "names": NAMES[:20]}
