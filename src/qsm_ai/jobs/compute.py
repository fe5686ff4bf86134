"""The computing process: reads tasks from standard input, answers on standard output, one line of JSON each.

Run as ``python -m qsm_ai.jobs.compute`` by ``jobs.process``. It ends itself when its input closes.
"""

from __future__ import annotations

import json
import os
import queue
import sys
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import fields
from pathlib import Path
from typing import Any

import numpy as np
import structlog

from qsm_ai import __version__
from qsm_ai.inference.errors import InferenceFailure
from qsm_ai.io.canonical import canonical_geometry
from qsm_ai.io.loading import Limits, SourceFile, load_scan
from qsm_ai.io.outputs import write_outputs
from qsm_ai.jobs.problem import Problem, inference_problem, internal, out_of_memory
from qsm_ai.observe import logs, tracing
from qsm_ai.observe.steps import Steps
from qsm_ai.observe.tracing import span
from qsm_ai.reconstruction.network import Network
from qsm_ai.reconstruction.options import Options
from qsm_ai.reconstruction.pipeline import Progress, reconstruct
from qsm_ai.reconstruction.stages import ARTEFACTS
from qsm_ai.scan import Refusal, Scan

log = structlog.get_logger("qsm_ai.compute")

NICENESS = 10
"""Beside a server that is busy, a computation gets a tenth; on a machine that has nothing else to do, all."""

AUTOGROUP = Path("/proc/self/autogroup")

Say = Callable[[dict[str, Any]], None]
Calls = list[tuple[str, float]]
"""How each request to Triton ended, and after how many seconds."""


def load(sources: Sequence[dict[str, str]], parameters: dict[str, Any]) -> Scan:
    """The scan that uploaded files and form fields describe.

    Parameters
    ----------
    sources : list of {role, name, path}
    parameters : dict
        As recorded with the job.

    Raises
    ------
    Refusal
    """

    def of(role: str) -> list[SourceFile]:
        return [SourceFile(s["name"], Path(s["path"])) for s in sources if s["role"] == role]

    def only(role: str) -> SourceFile | None:
        found = of(role)
        if len(found) > 1:
            raise Refusal(f"Several files were given as {role}.", mend="Give one.", file=found[1].name)
        return found[0] if found else None

    limits = parameters.get("limits") or {}
    return load_scan(
        of("phase"),
        of("magnitude"),
        only("mask"),
        of("sidecar"),
        te_ms=parameters.get("te_ms"),
        b0=parameters.get("b0"),
        b0_direction=parameters.get("b0_direction"),
        total_field=only("total_field"),
        local_field=only("local_field"),
        phase_sign=parameters.get("phase_sign", "auto"),
        limits=Limits(**limits),
        name=parameters.get("name"),
    )


def validate(task: dict[str, Any], _say: Say, _calls: Calls) -> dict[str, Any]:
    """Read everything, refuse what cannot be reconstructed, say what there is."""
    scan = load(task["sources"], task["parameters"])
    Options(**_choices(task["parameters"]))
    shape = scan.grid.shape
    return {
        "name": scan.name,
        "shape": list(shape),
        "voxel_size": [round(x, 6) for x in scan.grid.voxel_size],
        "voxels": int(np.prod(shape)),
        "echoes": max(1, len(scan.echo_times)),
        "echo_times_ms": [round(1000 * t, 6) for t in scan.echo_times],
        "field_strength": scan.field_strength,
        "b0_direction": [round(x, 6) for x in scan.b0_direction],
        "phase_rule": scan.phase_rule,
        "sources": scan.sources,
    }


def run_reconstruction(task: dict[str, Any], say: Say, calls: Calls) -> dict[str, Any]:
    """Reconstruct, and leave the result files in the task's output folder."""
    options = Options(**_choices(task["parameters"]))

    def on_progress(progress: Progress) -> None:
        steps.at(progress.stage)
        say(
            {
                "kind": "progress",
                "stage": progress.stage,
                "fraction": round(float(progress.fraction), 4),
                "detail": progress.detail,
            }
        )

    began = time.perf_counter()
    with span("reading"):
        scan = load(task["sources"], task["parameters"])
    reading = time.perf_counter() - began
    network = _network(task, calls) if options.method == "qsm-vit" else None
    with Steps("stage") as steps:
        result = reconstruct(scan, options, network, on_progress)
    with span("writing"):
        written = write_outputs(scan, result, task["output"], {"reading": reading})
    shape, voxel_size = canonical_geometry(scan.grid)
    return {
        "files": [
            {
                "artefact": name if name in ARTEFACTS else None,
                "file": path.name,
                "media_type": _MEDIA_TYPES[path.suffix],
            }
            for name, path in written.items()
        ],
        "shape": list(shape),
        "voxel_size": [round(size, 6) for size in voxel_size],
        "scores": {name: float(value) for name, value in result.scores.items() if np.isfinite(value)},
        "timings": {name: round(seconds, 4) for name, seconds in result.timings.items()},
        "warnings": list(result.warnings),
    }


def _network(task: dict[str, Any], calls: Calls) -> Network:
    # Not every job needs gRPC, whose import takes a good part of a second.
    from qsm_ai.inference.triton import TritonNetwork

    return TritonNetwork(
        task["triton_url"],
        client_timeout=task["triton_timeout"],
        deadline=task["job_timeout"],
        max_in_flight=task["triton_in_flight"],
        on_call=lambda outcome, seconds: calls.append((outcome, round(seconds, 4))),
    )


_MEDIA_TYPES = {
    ".gz": "application/gzip",
    ".json": "application/json",
    ".png": "image/png",
    ".html": "text/html",
}


def _choices(parameters: dict[str, Any]) -> dict[str, Any]:
    names = [choice.name for choice in fields(Options)]
    return {name: parameters[name] for name in names if parameters.get(name) is not None}


TASKS: dict[str, Callable[[dict[str, Any], Say, Calls], dict[str, Any]]] = {
    "validate": validate,
    "reconstruct": run_reconstruction,
}


def answer(task: dict[str, Any], say: Say) -> dict[str, Any]:
    """Do a task; whatever goes wrong becomes a problem that names no value of the user's.

    The task's ``log`` are the ids that its events bear, its ``trace`` continues the request's trace.
    """
    calls: Calls = []
    with structlog.contextvars.bound_contextvars(**task.get("log", {})):
        reply = _answer(task, say, calls)
    return {**reply, "triton": calls} if calls else reply


def _answer(task: dict[str, Any], say: Say, calls: Calls) -> dict[str, Any]:
    try:
        with span(f"compute.{task['task']}", parent=task.get("trace", {})):
            return {"kind": "result", "result": TASKS[task["task"]](task, say, calls)}
    except Refusal as refusal:
        problem = Problem.from_refusal(refusal)
    except InferenceFailure as error:
        problem = inference_problem(error)
    except MemoryError:
        problem = out_of_memory("The scan needs more memory than this server has.")
    except Exception as error:  # the boundary of the process: nothing may leave it but a problem
        log.exception("compute.error")
        problem = internal(type(error).__name__)
    return {"kind": "problem", "problem": problem.to_dict()}


def give_way() -> None:
    """Let the server answer first: it needs little, and at once."""
    os.nice(NICENESS)
    # On a desktop's kernel a session counts as one against the others, however nice those in it are.
    with suppress(OSError):
        AUTOGROUP.write_text(str(NICENESS))


def main() -> None:
    """Serve until the input closes."""
    give_way()
    # Libraries print what they like; only we may write to the channel.
    channel = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    logs.configure("compute", os.environ.get("QSM_LOG_LEVEL", "info"), sys.stderr)
    tracing.configure("qsm-ai-compute", __version__)
    tasks: queue.SimpleQueue[str] = queue.SimpleQueue()

    def listen() -> None:
        for line in sys.stdin:
            tasks.put(line)
        # The server is gone, however it went: a computation without anyone to answer to ends here.
        os._exit(0)

    threading.Thread(target=listen, daemon=True).start()

    def say(message: dict[str, Any]) -> None:
        with suppress(BrokenPipeError):
            channel.write(json.dumps(message) + "\n")
            channel.flush()

    while True:
        say(answer(json.loads(tasks.get()), say))
        # Soon, for this process may be killed when it has answered; but the next task does not wait for it.
        threading.Thread(target=tracing.flush, daemon=True).start()


if __name__ == "__main__":
    main()
