"""The record of jobs is a queue that loses nothing, gives nothing out twice, and is fair."""

from __future__ import annotations

import secrets
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import pytest

from qsm_ai.api.routes.jobs import LAST_EVENT
from qsm_ai.api.upload_records import PendingUpload, UploadNotFoundError, UploadRecords
from qsm_ai.jobs.errors import (
    IdempotencyConflictError,
    JobNotFoundError,
    OwnerLimitError,
    OwnerStorageError,
    QueueFullError,
    UploadGoneError,
    WrongStateError,
)
from qsm_ai.jobs.fairness import fair_order
from qsm_ai.jobs.holding import MAX_LOST, OVERTAKEN_FOR
from qsm_ai.jobs.problem import Problem
from qsm_ai.jobs.records import Job, State, StoredArtefact, Upload, Waiting, WorkerRecord
from qsm_ai.jobs.store import JobStore

PROBLEM = Problem("broken", "Broken", 500, "It broke.", "Mend it.")


class Clock:
    def __init__(self) -> None:
        self.now = 1_000_000.0

    def __call__(self) -> float:
        self.now += 0.001
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def url(database_url: str) -> str:
    return database_url


@pytest.fixture
def store(url: str, clock: Clock) -> Iterator[JobStore]:
    store = JobStore(url, clock)
    yield store
    store.close()


def a_job(owner: str = "ann", priority: int = 0, method: str = "tkd", voxels: int = 1000) -> Job:
    return Job(
        id=secrets.token_hex(16),
        owner=owner,
        state=State.QUEUED,
        parameters={"method": method},
        uploads=(),
        summary={"voxels": voxels, "echoes": 2},
        priority=priority,
    )


def add(
    store: JobStore, owner: str = "ann", priority: int = 0, method: str = "tkd", max_queued: int = 99
) -> Job:
    return store.add(a_job(owner, priority, method), max_queued=max_queued)


def claim(store: JobStore, worker: str = "here:1") -> Job:
    job = store.claim(worker)
    assert job is not None
    return job


def complete(store: JobStore, job: Job) -> bool:
    artefact = StoredArtefact("chi", "x_Chimap.nii.gz", "results/1/0", 9, (2, 3, 4), (1.0, 1.0, 2.0))
    return store.complete(
        job, artefacts=[artefact], others=[], warnings=["w"], scores={"s": 0.5}, timings={"mask": 1.0}
    )


def test_a_job_goes_from_queued_over_running_to_done(store: JobStore) -> None:
    added = add(store)
    assert added.state is State.QUEUED
    job = claim(store)
    assert (job.id, job.state, job.attempt) == (added.id, State.RUNNING, 1)
    assert store.progress(job, stage="mask", fraction=0.5, note="half")
    assert store.get(job.id).fraction == 0.5
    assert complete(store, job)
    done = store.get(job.id)
    assert done.state is State.DONE
    assert done.fraction == 1.0
    assert done.artefacts[0].shape == (2, 3, 4)
    assert done.warnings == ("w",)
    assert done.created_at < (done.started_at or 0) < (done.finished_at or 0)


def test_everything_is_still_there_after_a_restart(store: JobStore, url: str) -> None:
    queued = add(store)
    job = add(store)
    store.close()
    again = JobStore(url)
    assert again.get(job.id) == job
    assert [each.id for each in again.waiting()] == [queued.id, job.id]
    again.close()


def test_jobs_are_taken_in_the_order_in_which_they_came(store: JobStore) -> None:
    ids = [add(store).id for _ in range(5)]
    assert [each.id for each in store.waiting()] == ids
    assert [claim(store).id for _ in ids] == ids
    assert store.claim("here:1") is None


def test_many_claimants_never_get_the_same_job(store: JobStore, url: str) -> None:
    ids = {add(store).id for _ in range(40)}
    stores = [JobStore(url) for _ in range(4)]

    def take(number: int) -> list[str]:
        taken = []
        while (job := stores[number].claim(f"host:{number}")) is not None:
            taken.append(job.id)
        return taken

    with ThreadPoolExecutor(4) as pool:
        taken = [job_id for found in pool.map(take, range(4)) for job_id in found]
    for other in stores:
        other.close()
    assert len(taken) == 40
    assert set(taken) == ids


def test_one_users_pile_does_not_starve_another(store: JobStore) -> None:
    pile = [add(store, "ann").id for _ in range(50)]
    assert claim(store).id == pile[0]
    single = add(store, "bob").id
    assert store.waiting()[0].id == single
    assert claim(store).id == single
    assert claim(store).id == pile[1]


def test_the_order_shown_is_the_order_taken(store: JobStore) -> None:
    for owner in "aabacbbc":
        add(store, owner, priority=int(owner == "c"))
    shown = [each.id for each in store.waiting()]
    assert [claim(store).id for _ in shown] == shown


def test_priority_comes_before_fairness() -> None:
    queued = [waiting("1", "ann", 0, 1.0), waiting("2", "ann", 5, 2.0), waiting("3", "bob", 0, 3.0)]
    assert [job.id for job in fair_order(queued, {"ann": 9.0})] == ["2", "3", "1"]


def waiting(job_id: str, owner: str, priority: int, queued_at: float) -> Waiting:
    return Waiting(job_id, owner, priority, queued_at, method="tkd", work=1.0, memory_mb=1)


def test_owners_take_turns_from_the_one_that_was_served_longest_ago() -> None:
    queued = [waiting(f"{owner}{n}", owner, 0, n) for owner in ("ann", "bob", "eve") for n in range(3)]
    order = [job.id for job in fair_order(queued, {"ann": 3.0, "bob": 1.0})]
    assert order == ["eve0", "bob0", "ann0", "eve1", "bob1", "ann1", "eve2", "bob2", "ann2"]


def test_a_full_queue_refuses(store: JobStore) -> None:
    add(store, max_queued=1)
    with pytest.raises(QueueFullError):
        add(store, max_queued=1)
    claim(store)
    add(store, max_queued=1)


def test_a_queued_job_is_cancelled_at_once(store: JobStore) -> None:
    job = add(store)
    assert store.cancel(job.id).state is State.CANCELLED
    assert store.claim("here:1") is None


def test_the_worker_of_a_running_job_is_told_to_stop(store: JobStore) -> None:
    add(store)
    job = claim(store)
    assert store.beat({job.id: job.attempt}) == {}
    assert store.cancel(job.id).state is State.RUNNING
    assert store.beat({job.id: job.attempt}) == {job.id: "cancel"}
    assert store.stopped(job)
    assert store.get(job.id).state is State.CANCELLED


def test_an_ended_job_cannot_be_cancelled_any_more(store: JobStore) -> None:
    add(store)
    job = claim(store)
    complete(store, job)
    assert store.cancel(job.id).state is State.DONE


def test_failed_and_cancelled_jobs_can_be_retried_and_others_not(store: JobStore) -> None:
    add(store)
    job = claim(store)
    with pytest.raises(WrongStateError):
        store.retry(job.id, max_queued=9)
    store.fail(job, PROBLEM)
    assert (store.get(job.id).problem or {})["code"] == "broken"
    retried = store.retry(job.id, max_queued=9)
    assert retried.state is State.QUEUED
    assert retried.problem is None
    again = claim(store)
    assert again.attempt == 2
    complete(store, again)
    with pytest.raises(WrongStateError):
        store.retry(job.id, max_queued=9)


def test_a_silent_workers_job_returns_to_its_place(store: JobStore, clock: Clock) -> None:
    first, second = add(store), add(store)
    job = claim(store)
    clock.now += 10
    assert store.reap(silent_for=20) == []
    clock.now += 11
    assert store.reap(silent_for=20) == [job.id]
    assert [each.id for each in store.waiting()] == [first.id, second.id]


def test_a_heartbeat_keeps_a_job(store: JobStore, clock: Clock) -> None:
    add(store)
    job = claim(store)
    for _ in range(10):
        clock.now += 10
        store.beat({job.id: job.attempt})
    assert store.reap(silent_for=20) == []


def test_a_dead_workers_job_need_not_wait_for_silence(store: JobStore) -> None:
    add(store)
    job = claim(store, "here:1")
    add(store)
    claim(store, "here:2")
    assert store.holders() == {"here:1", "here:2"}
    assert store.reap(silent_for=20, dead_workers=["here:1"]) == [job.id]


def test_silence_may_be_no_reason_to_take_a_job_back(store: JobStore, clock: Clock) -> None:
    add(store)
    add(store)
    claim(store, "here:1")
    dead = claim(store, "here:2")
    clock.now += 3600
    assert store.reap(silent_for=None) == []
    assert store.reap(silent_for=None, dead_workers=["here:2"]) == [dead.id]


def test_a_worker_that_was_given_up_can_change_nothing_any_more(store: JobStore) -> None:
    add(store)
    lost = claim(store, "here:1")
    store.reap(silent_for=20, dead_workers=["here:1"])
    assert store.beat({lost.id: lost.attempt}) == {lost.id: "lost"}
    taken = claim(store, "here:2")
    assert not store.progress(lost, stage="mask", fraction=0.9)
    assert not complete(store, lost)
    assert not store.fail(lost, PROBLEM)
    assert not store.stopped(lost)
    assert not store.give_back(lost)
    assert store.get(taken.id).state is State.RUNNING
    assert complete(store, taken)


def test_an_end_recorded_twice_is_recorded_once(store: JobStore) -> None:
    """Whoever lost the connection before the answer came asks again."""
    add(store)
    job = claim(store)
    assert complete(store, job)
    assert complete(store, job)
    assert [event.data["state"] for event in store.events(job.id)] == ["queued", "running", "done"]
    assert not store.fail(job, PROBLEM)
    assert store.get(job.id).state is State.DONE
    assert store.add(job, max_queued=1).state is State.DONE


def test_a_job_that_kills_its_workers_fails_in_the_end(store: JobStore) -> None:
    job = add(store)
    for _ in range(MAX_LOST):
        claim(store, "here:1")
        store.reap(silent_for=20, dead_workers=["here:1"])
    failed = store.get(job.id)
    assert failed.state is State.FAILED
    assert (failed.problem or {})["code"] == "worker-lost"


def test_a_job_whose_worker_died_while_it_was_being_cancelled_is_cancelled(store: JobStore) -> None:
    job = add(store)
    claim(store, "here:1")
    store.cancel(job.id)
    store.reap(silent_for=20, dead_workers=["here:1"])
    assert store.get(job.id).state is State.CANCELLED


def test_a_worker_that_shuts_down_gives_its_job_back_without_blame(store: JobStore) -> None:
    add(store)
    for _ in range(MAX_LOST + 1):
        assert store.give_back(claim(store))
    assert len(store.waiting()) == 1


def test_a_job_whose_user_wants_it_stopped_is_not_queued_again(store: JobStore) -> None:
    """Its worker shuts down, or blames the server, before it has seen the wish."""
    for let_go in (store.give_back, lambda job: store.put_off(job, PROBLEM)):
        add(store)
        job = claim(store)
        assert store.cancel(job.id).state is State.RUNNING
        assert let_go(job) is State.CANCELLED
        assert store.get(job.id).state is State.CANCELLED
        assert store.waiting() == []


def test_a_deleted_job_and_its_events_are_gone(store: JobStore, url: str) -> None:
    add(store)
    job = claim(store)
    store.delete(job.id)
    with pytest.raises(JobNotFoundError):
        store.get(job.id)
    assert store.events(job.id) == []
    assert store.beat({job.id: job.attempt}) == {job.id: "lost"}
    assert not complete(store, job)


def test_another_owners_job_is_not_found(store: JobStore) -> None:
    job = add(store, "ann")
    assert store.get(job.id, owner="ann").id == job.id
    with pytest.raises(JobNotFoundError):
        store.get(job.id, owner="bob")
    assert store.page(owner="bob") == []


def test_events_continue_where_a_reader_stopped(store: JobStore) -> None:
    job = add(store)
    running = claim(store)
    seen = store.events(job.id)
    assert [event.kind for event in seen] == ["state", "state"]
    store.progress(running, stage="mask", fraction=0.1)
    complete(store, running)
    later = store.events(job.id, after=seen[-1].id)
    assert [(event.kind, event.data.get("state", event.data.get("stage"))) for event in later] == [
        ("progress", "mask"),
        ("state", "done"),
    ]
    assert all(a.id < b.id for a, b in zip(seen + later, (seen + later)[1:], strict=False))


def test_pages_run_through_all_jobs_newest_first(store: JobStore) -> None:
    ids = [add(store).id for _ in range(5)]
    first = store.page(limit=2)
    rest = store.page(limit=9, before=first[-1].created_at)
    assert [job.id for job in first + rest] == ids[::-1]
    claim(store)
    assert [job.id for job in store.page(state=State.RUNNING)] == [ids[0]]


def test_counts_and_pace_come_from_the_record(store: JobStore, clock: Clock) -> None:
    add(store)
    add(store)
    assert store.pace("tkd") is None
    job = claim(store)
    clock.now += 20
    complete(store, job)
    assert store.counts()[State.DONE] == 1
    assert store.counts()[State.QUEUED] == 1
    assert store.pace("tkd") == pytest.approx(20 / 2000, rel=0.01)
    assert store.pace("tv") is None


def test_what_ended_long_ago_is_found_for_retention(store: JobStore, clock: Clock) -> None:
    add(store)
    job = claim(store)
    complete(store, job)
    add(store)
    assert store.finished_before(clock.now - 100) == []
    assert store.finished_before(clock.now + 100) == [job.id]


def test_an_old_job_is_removed_or_retried_and_never_both(store: JobStore, clock: Clock) -> None:
    old, retried = add(store), add(store)
    for job in (old, retried):
        store.cancel(job.id)
    clock.now += 100
    moment = clock.now
    store.retry(retried.id, max_queued=9)
    assert store.condemn(retried.id, moment) is None
    assert store.condemn(old.id, moment - 200) is None
    found = store.condemn(old.id, moment)
    assert found is not None
    assert found.id == old.id
    with pytest.raises(JobNotFoundError):
        store.retry(old.id, max_queued=9)
    assert store.condemn(old.id, moment) is not None, "the next sweep tries again"
    assert store.condemn("0" * 32, moment) is None
    assert [each.id for each in store.waiting()] == [retried.id]


def test_a_request_sent_twice_makes_one_job(store: JobStore) -> None:
    first = store.add(replace(a_job(), idempotency_key="k"), max_queued=9)
    again = store.add(replace(a_job(), idempotency_key="k"), max_queued=9)
    assert again.id == first.id
    assert [each.id for each in store.waiting()] == [first.id]
    found = store.find_by_key("ann", "k")
    assert found is not None
    assert found.id == first.id


def test_the_same_request_finds_its_job_even_when_nothing_more_may_wait(store: JobStore) -> None:
    first = store.add(replace(a_job(), idempotency_key="k"), max_queued=1, max_unfinished=1)
    assert store.add(replace(a_job(), idempotency_key="k"), max_queued=1, max_unfinished=1).id == first.id


def test_an_idempotency_key_belongs_to_its_owner_and_to_what_came_with_it(store: JobStore) -> None:
    first = store.add(replace(a_job("ann"), idempotency_key="k"), max_queued=9)
    assert store.add(replace(a_job("bob"), idempotency_key="k"), max_queued=9).id != first.id
    other = replace(
        a_job("ann"), idempotency_key="k", uploads=(Upload("phase", "p.nii", "uploads/0", 1, "ab"),)
    )
    with pytest.raises(IdempotencyConflictError) as conflict:
        store.add(other, max_queued=9)
    assert conflict.value.job_id == first.id
    assert store.find_by_key("eve", "k") is None


def test_a_key_is_free_again_once_its_job_is_deleted(store: JobStore) -> None:
    first = store.add(replace(a_job(), idempotency_key="k"), max_queued=9)
    store.delete(first.id)
    assert store.find_by_key("ann", "k") is None
    assert store.add(replace(a_job(), idempotency_key="k"), max_queued=9).id != first.id


def test_requests_that_race_under_one_key_make_one_job(url: str, store: JobStore) -> None:
    stores = [JobStore(url) for _ in range(8)]

    def send(own: JobStore) -> str:
        return own.add(replace(a_job(), idempotency_key="k"), max_queued=9).id

    with ThreadPoolExecutor(8) as pool:
        ids = set(pool.map(send, stores))
    for own in stores:
        own.close()
    assert len(ids) == 1
    assert [each.id for each in store.waiting()] == list(ids)


def test_requests_that_race_do_not_overfill_the_queue(url: str, store: JobStore) -> None:
    stores = [JobStore(url) for _ in range(8)]

    def send(own: JobStore) -> bool:
        try:
            own.add(a_job(), max_queued=3)
        except QueueFullError:
            return False
        return True

    with ThreadPoolExecutor(8) as pool:
        taken = list(pool.map(send, stores))
    for own in stores:
        own.close()
    assert taken.count(True) == 3


def test_one_owner_may_have_so_many_unfinished_jobs_and_no_more(store: JobStore) -> None:
    store.add(a_job("ann"), max_queued=9, max_unfinished=2)
    claim(store)
    store.add(a_job("ann"), max_queued=9, max_unfinished=2)
    with pytest.raises(OwnerLimitError) as refused:
        store.add(a_job("ann"), max_queued=9, max_unfinished=2)
    assert refused.value.limit == 2
    store.add(a_job("bob"), max_queued=9, max_unfinished=2)


def test_what_an_owner_takes_up_is_counted(store: JobStore) -> None:
    upload = Upload("phase", "p.nii", "uploads/0", 100, "ab")
    store.add(replace(a_job("ann"), uploads=(upload,)), max_queued=9)
    job = claim(store)
    add(store, "ann")
    complete(store, job)
    assert (store.usage("ann").unfinished, store.usage("ann").stored_bytes) == (1, 109)
    assert (store.usage("bob").unfinished, store.usage("bob").stored_bytes) == (0, 0)


def test_an_owners_files_take_up_no_more_than_they_may_however_many_come_at_once(
    store: JobStore, database_url: str
) -> None:
    upload = Upload("phase", "p.nii", "uploads/0", 40, "ab")
    elsewhere = JobStore(database_url)

    def one(number: int) -> bool:
        try:
            job = replace(a_job("ann"), uploads=(upload,))
            (store, elsewhere)[number % 2].add(job, max_queued=99, max_stored=100)
        except OwnerStorageError:
            return False
        return True

    with ThreadPoolExecutor(6) as pool:
        assert sum(pool.map(one, range(6))) == 2
    elsewhere.close()
    assert store.usage("ann").stored_bytes == 80
    store.add(replace(a_job("bob"), uploads=(upload,)), max_queued=99, max_stored=100)


def test_a_job_past_its_deadline_fails_without_being_begun(store: JobStore, clock: Clock) -> None:
    late = store.add(replace(a_job(), deadline_at=clock.now + 10), max_queued=9)
    other = add(store)
    assert store.expire() == []
    clock.now += 11
    assert store.expire() == [late.id]
    assert (store.get(late.id).problem or {})["code"] == "deadline-exceeded"
    assert [each.id for each in store.waiting()] == [other.id]
    retried = store.retry(late.id, max_queued=9)
    assert retried.deadline_at == pytest.approx(clock.now + 10, abs=1)


def test_each_retry_gives_as_much_time_as_the_first_attempt_had(store: JobStore, clock: Clock) -> None:
    job = store.add(replace(a_job(), deadline_at=clock.now + 3600), max_queued=9)
    for _ in range(3):
        clock.now += 36_000
        store.cancel(job.id)
        retried = store.retry(job.id, max_queued=9)
        assert (retried.deadline_at or 0) - clock.now == pytest.approx(3600, abs=1)


def test_a_worker_takes_what_it_can_do_and_what_fits(store: JobStore, clock: Clock) -> None:
    network = add(store, method="qsm-vit")
    huge = store.add(a_job("bob", voxels=500**3), max_queued=9)
    small = add(store, "eve")
    needed = {job.id: job.memory_mb for job in store.waiting()}
    assert needed[huge.id] > 10 * needed[small.id]
    room = needed[small.id] + 1
    taken = store.claim("here:1", without=["qsm-vit"], free_mb=room, whole_mb=needed[huge.id])
    assert taken is not None
    assert taken.id == small.id
    assert store.claim("here:1", without=["qsm-vit"], free_mb=room, whole_mb=room) is None
    assert claim(store).id == network.id


def test_a_large_job_is_not_overtaken_for_ever(store: JobStore, clock: Clock) -> None:
    huge = store.add(a_job("bob", voxels=500**3), max_queued=9)
    needed = store.waiting()[0].memory_mb
    clock.now += OVERTAKEN_FOR + 1
    add(store, "eve")
    assert store.claim("here:1", free_mb=needed - 1, whole_mb=needed) is None
    # A worker for which it would always be too large goes on with the others.
    assert store.claim("here:2", free_mb=needed - 1, whole_mb=needed - 1) is not None
    taken = store.claim("here:1", free_mb=needed, whole_mb=needed)
    assert taken is not None
    assert taken.id == huge.id


def test_a_job_put_off_keeps_its_place_and_fails_when_it_has_been_too_often(store: JobStore) -> None:
    first, second = add(store), add(store)
    for _ in range(MAX_LOST - 1):
        job = claim(store)
        assert job.id == first.id
        assert store.put_off(job, PROBLEM) is State.QUEUED
        assert [each.id for each in store.waiting()] == [first.id, second.id]
    assert store.put_off(claim(store), PROBLEM) is State.FAILED
    assert store.put_off(job, PROBLEM) is None
    assert (store.get(first.id).problem or {})["code"] == "broken"


def test_waiting_jobs_say_why_they_wait(store: JobStore) -> None:
    job = add(store, method="qsm-vit")
    add(store, method="tkd")
    assert store.explain("qsm-vit", "Waiting: no server") == [job.id]
    assert store.explain("qsm-vit", "Waiting: no server") == []
    assert store.get(job.id).note == "Waiting: no server"
    assert store.events(job.id)[-1].data["note"] == "Waiting: no server"
    assert store.explain("qsm-vit", None) == [job.id]
    assert store.get(job.id).note is None


def test_workers_that_see_different_reasons_do_not_rewrite_each_others(store: JobStore) -> None:
    job = add(store, method="qsm-vit")
    for _ in range(5):
        store.explain("qsm-vit", "Waiting: no server")
        store.explain("qsm-vit", "Waiting: no model")
    assert [event.data["note"] for event in store.events(job.id)[1:]] == ["Waiting: no server"]
    later = add(store, method="qsm-vit")
    assert store.explain("qsm-vit", "Waiting: no model") == [later.id]


def test_jobs_that_waited_too_long_for_what_does_not_come_are_given_up(store: JobStore, clock: Clock) -> None:
    old = add(store, method="qsm-vit")
    clock.now += 100
    young = add(store, method="qsm-vit")
    add(store, method="tkd")
    assert store.give_up("qsm-vit", PROBLEM, waiting_since=clock.now - 50) == [old.id]
    assert store.get(old.id).state is State.FAILED
    assert store.get(young.id).state is State.QUEUED


def test_workers_tell_of_themselves_until_they_fall_silent(store: JobStore, clock: Clock) -> None:
    trouble = PROBLEM.to_dict()
    store.announce(WorkerRecord("a:1", 2, 4000, 0, 0))
    store.announce(WorkerRecord("b:1", 1, 8000, 0, 0, trouble=trouble))
    since = store.workers()[1].trouble_since
    clock.now += 10
    store.announce(WorkerRecord("b:1", 1, 8000, 0, 0, trouble=trouble))
    first, second = store.workers()
    assert (first.name, first.slots, first.memory_mb, first.trouble) == ("a:1", 2, 4000, None)
    assert (second.trouble, second.trouble_since) == (trouble, since)
    clock.now += 11
    assert [worker.name for worker in store.workers()] == ["b:1"]
    store.announce(WorkerRecord("b:1", 1, 8000, 0, 0))
    assert (store.workers()[0].trouble, store.workers()[0].trouble_since) == (None, None)
    store.retire("b:1")
    assert store.workers() == []


def test_nothing_of_an_owner_stays_once_all_their_jobs_are_deleted(store: JobStore) -> None:
    one, two = add(store, "ann"), add(store, "ann")
    claim(store), claim(store)
    store.delete(one.id)
    store.delete(two.id)
    with store.engine.connect() as connection:
        assert connection.exec_driver_sql("SELECT owner FROM owners").all() == []


def announced(store: JobStore, *names: str, size: int = 40) -> UploadRecords:
    records = UploadRecords(store)
    for name in names:
        records.add(PendingUpload(name, "ann", "p.nii", size), lifetime=1e6, most_bytes=1000)
    return records


def of_uploads(*sizes: int, owner: str = "ann") -> Job:
    uploads = (Upload("phase", "p.nii", f"uploads/{n}", size, "ab") for n, size in enumerate(sizes))
    return replace(a_job(owner), uploads=tuple(uploads))


def test_an_upload_becomes_one_job_however_many_want_it(store: JobStore, url: str) -> None:
    records = announced(store, "u", "v")
    elsewhere = JobStore(url)

    def one(number: int) -> bool:
        own = (store, elsewhere)[number % 2]
        try:
            own.add(of_uploads(40, 40), max_queued=99, consumes=["u", "v"], max_stored=100)
        except UploadGoneError:
            return False
        return True

    with ThreadPoolExecutor(6) as pool:
        assert sum(pool.map(one, range(6))) == 1
    elsewhere.close()
    assert records.known_ids() == set()
    assert store.usage("ann").stored_bytes == 80


def test_an_upload_named_twice_counts_as_often_as_it_is_stored(store: JobStore) -> None:
    announced(store, "u")
    with pytest.raises(OwnerStorageError):
        store.add(of_uploads(40, 40), max_queued=9, consumes=["u", "u"], max_stored=79)
    store.add(of_uploads(40, 40), max_queued=9, consumes=["u", "u"], max_stored=80)
    assert store.usage("ann").stored_bytes == 80


def test_a_job_that_is_not_made_leaves_its_uploads(store: JobStore) -> None:
    records = announced(store, "u")
    with pytest.raises(UploadGoneError):
        store.add(of_uploads(40), max_queued=9, consumes=["u", "gone"])
    with pytest.raises(UploadGoneError):
        store.add(of_uploads(40, owner="bob"), max_queued=9, consumes=["u"])
    with pytest.raises(QueueFullError):
        store.add(of_uploads(40), max_queued=0, consumes=["u"])
    with pytest.raises(OwnerStorageError):
        store.add(of_uploads(40), max_queued=9, consumes=["u"], max_stored=39)
    assert records.known_ids() == {"u"}
    assert store.waiting() == []


def test_what_is_recorded_twice_takes_its_uploads_once(store: JobStore) -> None:
    """When the connection broke before the answer, and when the same request came again."""
    records = announced(store, "u")
    job = replace(of_uploads(40), idempotency_key="k")
    for again in (job, job, replace(job, id=secrets.token_hex(16))):
        assert store.add(again, max_queued=9, consumes=["u"], max_stored=40).id == job.id
    with pytest.raises(UploadNotFoundError):
        records.get("u", "ann")


def test_which_uploads_a_job_was_made_of_is_not_what_was_asked(store: JobStore) -> None:
    """Who sends the same files again names others."""
    first = replace(a_job(), idempotency_key="k", parameters={"method": "tkd", "uploads": [["phase", "u"]]})
    again = replace(a_job(), idempotency_key="k", parameters={"method": "tkd", "uploads": [["phase", "v"]]})
    assert first.fingerprint == again.fingerprint
    store.add(first, max_queued=9)
    assert store.add(again, max_queued=9).id == first.id


def test_events_after_the_last_that_there_can_be_are_none(store: JobStore) -> None:
    assert store.events(add(store).id, after=LAST_EVENT) == []
