"""The reference scan through the whole service: written, computed, read, compared, deleted."""

from __future__ import annotations

import gzip
import time
from collections.abc import Iterator
from typing import Any

import nibabel as nib
import numpy as np
from numpy.typing import NDArray

from qsm_ai.doctor.deployment import Away, Deployment, refused
from qsm_ai.doctor.findings import Fact, Finding, ok, skipped, warning, wrong
from qsm_ai.doctor.reference import LIMIT, compare, expected, reference_scan

RUNBOOK = "docs/runbooks"
LOOK_EVERY = 0.5
ENDED = frozenset({"done", "failed", "cancelled"})


class Trouble(Exception):  # noqa: N818 - a finding on its way out
    """What went wrong on the way of the scan."""

    def __init__(self, found: Finding) -> None:
        super().__init__(found.said)
        self.found = found


def examine(
    deployment: Deployment, patience: float, *, with_network: bool = True, same_version: bool = True
) -> Iterator[Finding]:
    """Send the reference scan, wait, compare its map, and leave nothing behind.

    Parameters
    ----------
    deployment : Deployment
    patience : float
        Seconds for the job.
    with_network : bool
        Otherwise the closed form is asked for, which needs no Triton: the storage is looked at all the same.
    same_version : bool
        Whether the service ought to give the very values that are expected here.

    Yields
    ------
    Finding
        ``network`` and ``storage``.
    """
    job = ""
    try:
        job = _send(deployment, "qsm-vit" if with_network else "tikhonov")
        ended, seconds = _wait(deployment, job, patience)
        if with_network:
            yield _judge(deployment, job, ended, seconds, same_version=same_version)
        else:
            yield skipped("network", "The inference server is not ready; the closed form was tried instead.")
            _fetch(deployment, job, ended)
    except Trouble as trouble:
        yield trouble.found
        if not job:
            other = "network" if trouble.found.name == "storage" else "storage"
            yield skipped(other, "No scan could be sent.")
    except Away as away:
        yield wrong("network", away.said, away.mend)
    except BaseException:  # Ctrl-C above all
        if job:
            _tidy(deployment, job)
        raise
    if job:
        yield _tidy(deployment, job)


def _send(deployment: Deployment, method: str) -> str:
    parts = {
        role: (f"{role}.nii.gz", gzip.compress(content, mtime=0), "application/gzip")
        for role, content in reference_scan().files().items()
    }
    try:
        answer = deployment.ask(
            "POST", "/api/v1/reconstruct", files=parts, data={"method": method}, timeout=120.0
        )
    except Away as away:
        raise Trouble(wrong("storage", f"The scan was not taken. {away.said}", away.mend)) from away
    if answer.is_success:
        return str(answer.json()["id"])
    told = refused(answer)
    facts: dict[str, Fact] = {"status": told.status, "code": told.code}
    if told.status in (429, 503) and told.code != "storage-down":
        raise Trouble(skipped("network", f"The service takes no scan now: {told.detail}", told.mend, **facts))
    if told.status >= 500:
        raise Trouble(
            wrong(
                "storage",
                f"The scan could not be stored: {told.detail}",
                f"Read the backend's log by the request's id, and {RUNBOOK}/QsmStorageErrors.md.",
                **facts,
            )
        )
    raise Trouble(
        wrong(
            "network",
            f"The reference scan was refused: {told.detail}",
            "Use the doctor of the service's version.",
            **facts,
        )
    )


def _wait(deployment: Deployment, job: str, patience: float) -> tuple[dict[str, Any], float]:
    began = time.monotonic()
    while True:
        answer = deployment.ask("GET", f"/api/v1/jobs/{job}")
        if not answer.is_success:
            told = refused(answer)
            raise Trouble(wrong("network", told.detail, told.mend, status=told.status, code=told.code))
        record: dict[str, Any] = answer.json()
        waited = time.monotonic() - began
        if record["state"] in ENDED:
            return record, waited
        if waited > patience:
            note = f" It says: {record['note']}" if record.get("note") else ""
            raise Trouble(
                wrong(
                    "network",
                    f"The reference scan is still {record['state']} after {patience:.0f} s.{note}",
                    f"Read {RUNBOOK}/QsmQueueOld.md, or give it more time with --patience.",
                    state=str(record["state"]),
                )
            )
        time.sleep(LOOK_EVERY)


def _fetch(deployment: Deployment, job: str, record: dict[str, Any]) -> bytes:
    if record["state"] != "done":
        problem = record.get("problem") or {}
        raise Trouble(
            wrong(
                "network",
                f"The reference scan {record['state']}: {problem.get('detail', 'no reason is told.')}",
                str(problem.get("mend") or f"Read {RUNBOOK}/QsmInferenceFails.md."),
                code=str(problem.get("code", "unknown")),
            )
        )
    answer = deployment.ask("GET", f"/api/v1/jobs/{job}/artefacts/chi", follow_redirects=True)
    if not answer.is_success:
        told = refused(answer)
        raise Trouble(
            wrong("storage", f"The map cannot be fetched: {told.detail}", told.mend, code=told.code)
        )
    return answer.content


def _judge(
    deployment: Deployment, job: str, record: dict[str, Any], seconds: float, *, same_version: bool
) -> Finding:
    content = _fetch(deployment, job, record)
    try:
        agreement = compare(_volume(content))
    except (ValueError, OSError, nib.filebasedimages.ImageFileError) as error:
        return wrong(
            "network", f"The map cannot be compared: {error}.", "Read the log of Triton and backend."
        )
    facts: dict[str, Fact] = {
        "seconds": round(seconds, 2),
        "error": round(agreement.error, 6),
        "correlation": round(agreement.correlation, 4),
        "weights": str(expected()["weights"]),
    }
    if agreement.is_right:
        return ok(
            "network", f"The network answers right ({seconds:.1f} s; error {agreement.error:.2%}).", **facts
        )
    if agreement.is_a_map:
        how = wrong if same_version else warning
        return how(
            "network",
            f"The map is one, but not that of this version's network (error {agreement.error:.1%},"
            f" allowed {LIMIT:.0%}).",
            "Other weights are served, or the network answers without values: compare qsm_network_info in"
            " Triton's metrics, and serve the model repository of this version.",
            **facts,
        )
    return wrong(
        "network",
        f"The network answers wrong: the map's correlation with the truth is {agreement.correlation:.2f}.",
        f"Take Triton out of service ({RUNBOOK}/QsmInferenceFails.md); maps made since are not to be used.",
        **facts,
    )


def _volume(content: bytes) -> NDArray[np.float64]:
    plain = gzip.decompress(content) if content[:2] == b"\x1f\x8b" else content
    return np.asarray(nib.Nifti1Image.from_bytes(plain).dataobj, np.float64)


def _tidy(deployment: Deployment, job: str) -> Finding:
    try:
        gone = deployment.ask("DELETE", f"/api/v1/jobs/{job}")
        after = deployment.ask("GET", f"/api/v1/jobs/{job}")
    except Away as away:
        return wrong("storage", f"The reference scan could not be deleted. {away.said}", away.mend)
    if not gone.is_success:
        told = refused(gone)
        return wrong(
            "storage",
            f"Writing works, deleting does not: {told.detail}",
            f"Give the service's role the right to delete, and read {RUNBOOK}/QsmRetentionFails.md.",
            status=told.status,
            code=told.code,
        )
    if after.status_code != 404:
        return wrong(
            "storage", "A deleted job is still there.", "Read the backend's log.", status=after.status_code
        )
    return ok("storage", "Writing, reading and deleting work.")
