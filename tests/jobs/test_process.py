"""Computing processes answer in messages, die when told, and never outlive who asked them."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from qsm_ai.jobs.compute import NICENESS
from qsm_ai.jobs.naming import is_alive
from qsm_ai.jobs.process import ComputingProcess, ProcessDiedError, ProcessPool
from qsm_ai.jobs.scratch import Scratch


def task(files: Any, kind: str = "validate", **parameters: Any) -> dict[str, Any]:
    sources = [
        {"role": "phase", "name": files.phase.name, "path": str(files.phase)},
        {"role": "magnitude", "name": files.magnitude.name, "path": str(files.magnitude)},
    ]
    asked = {"te_ms": [4, 8, 12], "b0": 3.0, "method": "tkd", **parameters}
    return {"task": kind, "sources": sources, "parameters": asked}


async def answers(process: ComputingProcess, what: dict[str, Any]) -> list[dict[str, Any]]:
    return [message async for message in process.perform(what)]


def test_a_scan_is_described(files: Any) -> None:
    async def scenario() -> dict[str, Any]:
        pool = ProcessPool(1)
        try:
            async with pool.lease() as process:
                return (await answers(process, task(files)))[-1]
        finally:
            await pool.close()

    answer = asyncio.run(scenario())
    assert answer["kind"] == "result"
    assert answer["result"]["shape"] == [48, 44, 40]
    assert answer["result"]["echoes"] == 3


def test_a_process_serves_several_tasks_and_a_refusal_does_not_hurt_it(files: Any) -> None:
    async def scenario() -> tuple[list[int], list[str]]:
        pool = ProcessPool(1)
        pids, kinds = [], []
        try:
            for parameters in ({}, {"te_ms": [4, 8]}, {}):
                async with pool.lease() as process:
                    pids.append(process.pid)
                    kinds.append((await answers(process, task(files, **parameters)))[-1]["kind"])
        finally:
            await pool.close()
        return pids, kinds

    pids, kinds = asyncio.run(scenario())
    assert kinds == ["result", "problem", "result"]
    assert len(set(pids)) == 1
    assert not is_alive(pids[0])


def test_a_process_is_replaced_after_its_share_of_tasks(files: Any) -> None:
    async def scenario() -> list[int]:
        pool = ProcessPool(1, tasks_each=1)
        pids = []
        try:
            for _ in range(2):
                async with pool.lease() as process:
                    pids.append(process.pid)
                    await answers(process, task(files))
        finally:
            await pool.close()
        return pids

    assert len(set(asyncio.run(scenario()))) == 2


def test_a_reconstruction_reports_its_progress_and_leaves_files(files: Any, tmp_path: Path) -> None:
    async def scenario() -> list[dict[str, Any]]:
        pool = ProcessPool(1)
        try:
            async with pool.lease() as process:
                return await answers(process, {**task(files, "reconstruct"), "output": str(tmp_path)})
        finally:
            await pool.close()

    *progress, last = asyncio.run(scenario())
    fractions = [message["fraction"] for message in progress]
    assert fractions == sorted(fractions)
    assert {message["stage"] for message in progress} >= {"mask", "field_mapping", "inversion"}
    written = {entry["file"] for entry in last["result"]["files"]}
    assert written == {path.name for path in tmp_path.iterdir()}
    assert {entry["artefact"] for entry in last["result"]["files"]} >= {"chi", "mask", None}
    assert sorted(last["result"]["shape"]) == [40, 44, 48]


def test_a_defect_becomes_a_problem_without_the_users_words(
    files: Any, capfd: pytest.CaptureFixture[str]
) -> None:
    async def scenario() -> dict[str, Any]:
        process = await ComputingProcess.start()
        try:
            return (await answers(process, {"task": "no such task", "sources": ["Doe^Jane"]}))[-1]
        finally:
            await process.kill()

    answer = asyncio.run(scenario())
    assert answer["problem"]["code"] == "internal"
    assert answer["problem"]["status"] == 500
    logged = json.loads(capfd.readouterr().out.splitlines()[-1])
    assert logged["error"] == "KeyError"
    assert "no such task" not in json.dumps(logged)


def test_it_gives_way_to_the_server(files: Any) -> None:
    def priorities(pid: int) -> tuple[int, str]:
        group = Path(f"/proc/{pid}/autogroup")
        return os.getpriority(os.PRIO_PROCESS, pid), group.read_text() if group.exists() else ""

    async def scenario() -> tuple[int, str]:
        process = await ComputingProcess.start()
        try:
            await answers(process, task(files))
            return priorities(process.pid)
        finally:
            await process.kill()

    niceness, group = asyncio.run(scenario())
    assert niceness >= NICENESS
    # The kernel counts a session as one where it groups them.
    assert not group or int(group.split()[-1]) == NICENESS


def test_a_killed_process_is_noticed(files: Any) -> None:
    async def scenario() -> None:
        process = await ComputingProcess.start()
        os.kill(process.pid, 9)
        try:
            await answers(process, task(files))
        finally:
            await process.kill()

    with pytest.raises(ProcessDiedError):
        asyncio.run(scenario())


def test_leaving_in_the_middle_of_a_task_ends_the_process_within_a_second(files: Any, tmp_path: Path) -> None:
    async def scenario() -> tuple[int, float]:
        pool = ProcessPool(1)
        try:
            what = {**task(files, "reconstruct", method="tv"), "output": str(tmp_path)}
            began = 0.0
            try:
                async with pool.lease() as process:
                    pid = process.pid
                    async for _ in process.perform(what):
                        began = time.monotonic()
                        raise InterruptedError
            except InterruptedError:
                pass
            return pid, time.monotonic() - began
        finally:
            await pool.close()

    pid, seconds = asyncio.run(scenario())
    assert seconds < 1
    assert not is_alive(pid)


def test_a_process_ends_when_who_asked_is_gone() -> None:
    """Even when that was killed and could tell nobody."""
    parent = subprocess.Popen(
        [
            sys.executable,
            "-c",
            "import asyncio\n"
            "from qsm_ai.jobs.process import ComputingProcess\n"
            "async def main():\n"
            "    process = await ComputingProcess.start()\n"
            "    print(process.pid, flush=True)\n"
            "    await asyncio.sleep(60)\n"
            "asyncio.run(main())\n",
        ],
        stdout=subprocess.PIPE,
        text=True,
    )
    assert parent.stdout is not None
    pid = int(parent.stdout.readline())
    assert is_alive(pid)
    parent.kill()
    parent.wait()
    parent.stdout.close()
    deadline = time.monotonic() + 15
    while running(pid):
        assert time.monotonic() < deadline
        time.sleep(0.05)


def running(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def test_scratch_folders_are_removed_whatever_happens(tmp_path: Path) -> None:
    scratch = Scratch(tmp_path / "scratch")

    async def scenario() -> None:
        async with scratch.folder() as folder:
            (folder / "phase").write_bytes(b"x")
            raise InterruptedError

    with pytest.raises(InterruptedError):
        asyncio.run(scenario())
    assert list((tmp_path / "scratch").iterdir()) == []


def test_what_a_killed_process_left_is_swept_and_a_living_ones_is_not(tmp_path: Path) -> None:
    """Whatever the two are called: process ids mean nothing between containers."""
    root = tmp_path / "scratch"
    program = (
        "import asyncio, pathlib, sys\n"
        "from qsm_ai.jobs.scratch import Scratch\n"
        "async def main():\n"
        "    async with Scratch(pathlib.Path(sys.argv[1])).folder() as folder:\n"
        "        (folder / 'phase').write_bytes(b'x')\n"
        "        print(folder.name, flush=True)\n"
        "        await asyncio.sleep(300)\n"
        "asyncio.run(main())\n"
    )
    started = [
        subprocess.Popen([sys.executable, "-c", program, str(root)], stdout=subprocess.PIPE, text=True)
        for _ in range(2)
    ]
    names = []
    for process in started:
        assert process.stdout is not None
        names.append(process.stdout.readline().strip())
    killed, living = started
    try:
        killed.kill()
        killed.wait()
        assert Scratch(root).sweep() == 1
        assert [entry.name for entry in root.iterdir()] == [names[1]]
    finally:
        living.kill()
        living.wait()
        for process in started:
            assert process.stdout is not None
            process.stdout.close()
