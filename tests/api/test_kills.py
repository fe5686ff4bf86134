"""Whatever is killed, whenever: a job ends once, with the bits of an undisturbed run, and nothing stays."""

from __future__ import annotations

import asyncio
import os
import random
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import pytest
from known_network import write_known_repository
from triton_processes import tritonserver_of

from qsm_ai.access.keys import KeyStore
from qsm_ai.inference.server import Ports, TritonServer
from qsm_ai.jobs.records import State
from qsm_ai.jobs.scratch import Scratch
from qsm_ai.jobs.store import JobStore
from qsm_ai.jobs.sweeping import Sweeper
from qsm_ai.storage import Storage

METHODS = ("qsm-vit", "tkd", "tikhonov", "qsm-vit")
WORKERS = 2


@pytest.fixture(scope="module")
def repository(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The shipped model with the arithmetic of the inference tests for weights: it loads at once."""
    return write_known_repository(tmp_path_factory.mktemp("repository"))


@dataclass
class Cluster:
    """A gateway, workers and Triton on one database and one storage; each can be killed and started again."""

    backend: Any
    repository: Path
    database: str
    storage: str
    postgres: Any = None
    triton_ports: Ports = field(default_factory=Ports.free)
    workers: list[subprocess.Popen[bytes]] = field(default_factory=list)
    triton: TritonServer | None = None
    killed: list[str] = field(default_factory=list)

    def start(self) -> None:
        self.start_triton()
        self.backend.start()
        for _ in range(WORKERS):
            self.start_worker()

    def start_worker(self) -> None:
        with (self.backend.folder / "workers.log").open("ab") as log:
            self.workers.append(
                subprocess.Popen(
                    [str(Path(sys.executable).parent / "qsm-ai"), "worker", "--slots", "1", "--port", "0"],
                    env=self.backend.environment,
                    stdout=log,
                    stderr=subprocess.STDOUT,
                )
            )

    def start_triton(self) -> None:
        self.triton = TritonServer(self.repository, precision="f32", ports=self.triton_ports)
        self.triton.start()

    def kill_worker(self) -> None:
        victim = self.workers.pop(0)
        victim.send_signal(signal.SIGKILL)
        victim.wait()
        self.start_worker()

    def kill_backend(self) -> None:
        self.backend.kill()
        self.backend.start()

    def kill_triton(self) -> None:
        assert self.triton is not None
        os.kill(tritonserver_of(self.triton_ports.grpc), signal.SIGKILL)
        self.triton.stop()
        self.start_triton()

    def cut_database(self) -> None:
        """SQLite has no connection that could be cut: the file is all there is."""
        if self.postgres is None:
            self.kill_worker()
        else:
            self.postgres.cut_connections(self.database)

    def kill(self, which: str) -> None:
        {
            "worker": self.kill_worker,
            "backend": self.kill_backend,
            "triton": self.kill_triton,
            "database": self.cut_database,
        }[which]()
        self.killed.append(which)

    def stop(self) -> None:
        for worker in self.workers:
            worker.send_signal(signal.SIGTERM)
        self.backend.stop()
        if self.triton is not None:
            self.triton.stop()
        for worker in self.workers:
            try:
                worker.wait(60)
            except subprocess.TimeoutExpired:
                worker.kill()
                worker.wait()
                raise


@pytest.fixture
def cluster(
    deployment: Any, make_backend: Callable[..., Any], repository: Path
) -> Iterator[Callable[[], Cluster]]:
    with ExitStack() as running:

        def start() -> Cluster:
            ports = Ports.free()
            backend = make_backend(
                QSM_ACCESS="keys",
                QSM_WORKERS="0",
                QSM_TRITON_URL=f"127.0.0.1:{ports.grpc}",
                QSM_MAX_QUEUED="100",
                QSM_RATE_LIMIT="",
            )
            backend.environment.pop("QSM_TRITON_PATIENCE_S")
            database = backend.environment.get(
                "QSM_DATABASE_URL", f"sqlite:///{backend.folder / 'data/jobs.db'}"
            )
            storage = backend.environment.get("QSM_STORAGE_URL", str(backend.folder / "data/objects"))
            found = Cluster(backend, repository, database, storage, deployment.postgres, ports)
            running.callback(found.stop)
            found.start()
            return found

        yield start


class User:
    """Somebody who sends scans until they are taken, whatever happens to the gateway meanwhile."""

    def __init__(self, url: str, key: str, files: Any) -> None:
        self._client = httpx.Client(
            base_url=url, timeout=120, headers={"Authorization": f"Bearer {key}"}, trust_env=False
        )
        self._files = files

    def close(self) -> None:
        self._client.close()

    def send(self, name: str, method: str) -> str:
        parts = [
            (role, (path.name, path.read_bytes(), "application/octet-stream"))
            for role, path in (("local_field", self._files.local_field), ("mask", self._files.mask))
        ]
        answer = self._until_answered(
            lambda: self._client.post(
                "/api/v1/reconstruct",
                files=parts,
                data={"method": method, "b0": "3"},
                headers={"Idempotency-Key": name},
            )
        )
        assert answer.status_code == 202, answer.text
        return str(answer.json()["id"])

    def job(self, job_id: str) -> dict[str, Any]:
        answer = self._until_answered(lambda: self._client.get(f"/api/v1/jobs/{job_id}"))
        assert answer.status_code == 200, answer.text
        found: dict[str, Any] = answer.json()
        return found

    def until_done(self, job_id: str, within: float) -> dict[str, Any]:
        deadline = time.monotonic() + within
        while (job := self.job(job_id))["state"] in ("queued", "running"):
            assert time.monotonic() < deadline, f"stuck: {job}"
            time.sleep(0.2)
        assert job["state"] == "done", job["problem"]
        return job

    def maps(self, job: dict[str, Any]) -> dict[str, bytes]:
        """Every volume of a job, bit by bit."""
        return {
            artefact["name"]: self._until_answered(
                lambda href=artefact["href"]: self._client.get(href)
            ).content
            for artefact in job["artefacts"]
        }

    def _until_answered(self, ask: Callable[[], httpx.Response]) -> httpx.Response:
        """A gateway that is killed or cut off from its database gives no answer, or asks for patience."""
        deadline = time.monotonic() + 240
        while True:
            try:
                answer = ask()
                if answer.status_code < 500:
                    return answer
            except httpx.TransportError:
                pass
            assert time.monotonic() < deadline
            time.sleep(0.3)


def run_through(cluster: Cluster, files: Any, kills: Sequence[str], users: int, each: int, seed: int) -> None:
    store = JobStore(cluster.database)
    keys = [KeyStore(store.database).create(f"user-{number}")[1] for number in range(users)]
    people = [User(cluster.backend.url, key, files) for key in keys]
    undisturbed: dict[str, tuple[str, dict[str, bytes]]] = {}
    for method in sorted(set(METHODS)):
        job = people[0].until_done(people[0].send(f"undisturbed-{method}", method), within=240)
        undisturbed[method] = job["id"], people[0].maps(job)
        assert "chi" in undisturbed[method][1]

    sent: dict[str, tuple[User, str]] = {}

    def send_all(person: User, number: int) -> None:
        for index in range(each):
            method = METHODS[(index + number) % len(METHODS)]
            sent[person.send(f"{number}-{index}", method)] = person, method

    chance = random.Random(seed)
    senders = [threading.Thread(target=send_all, args=(p, n)) for n, p in enumerate(people)]
    for sender in senders:
        sender.start()
    try:
        for which in kills:
            time.sleep(chance.uniform(0.1, 2.5))
            cluster.kill(which)
    finally:
        for sender in senders:
            sender.join()

    assert cluster.killed == list(kills)
    assert len(sent) == users * each, "a scan sent again makes no second job"
    for job_id, (person, method) in sent.items():
        job = person.until_done(job_id, within=600)
        assert person.maps(job) == undisturbed[method][1]

    known = {*sent, *(job_id for job_id, _ in undisturbed.values())}
    counts = store.counts()
    assert counts == {**dict.fromkeys(State, 0), State.DONE: len(known)}
    assert store.known_ids() == known
    for job_id in known:
        states = [event.data["state"] for event in store.events(job_id) if event.kind == "state"]
        assert states.count("done") == 1
        assert states[-1] == "done"
    asyncio.run(nothing_is_left_over(cluster, store, known))
    for person in people:
        person.close()
    store.close()


async def nothing_is_left_over(cluster: Cluster, store: JobStore, known: set[str]) -> None:
    storage = Storage.from_url(cluster.storage)
    # What a killed gateway had stored of a scan that it never recorded is nobody's after an hour.
    await Sweeper(store, storage, orphan_age=0).sweep()
    expected = {
        f"{job.prefix}/{file.key}"
        for job in map(store.get, known)
        for file in (*job.uploads, *job.artefacts, *job.others)
    }
    stored = {info.key for info in await storage.entries() if not info.key.startswith("checks/")}
    assert stored == expected
    deadline = time.monotonic() + 30
    scratch = cluster.backend.folder / "data/scratch"
    while left := list(scratch.iterdir()):
        Scratch(scratch).sweep()
        assert time.monotonic() < deadline, left
        await asyncio.sleep(0.2)


@pytest.mark.timeout(900)
@pytest.mark.parametrize("deployment", ["postgres-s3"], indirect=True)
def test_every_kind_of_death_once(cluster: Callable[[], Cluster], files: Any) -> None:
    run_through(cluster(), files, ["worker", "database", "backend", "triton"], users=2, each=4, seed=1)


@pytest.mark.slow
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("deployment", ["sqlite-folder", "postgres-s3"], indirect=True)
def test_twenty_deaths_under_forty_jobs_of_five_users(cluster: Callable[[], Cluster], files: Any) -> None:
    chance = random.Random(20)
    kills = [kind for kind in ("worker", "backend", "triton", "database") for _ in range(5)]
    chance.shuffle(kills)
    run_through(cluster(), files, kills, users=5, each=8, seed=2)
