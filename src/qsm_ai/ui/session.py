"""What the page remembers for one visitor: the open job, the jobs started here, the sample."""

from __future__ import annotations

import os
import secrets
from dataclasses import dataclass
from pathlib import Path
from typing import Self

import streamlit as st

from qsm_ai.ui import sign_in
from qsm_ai.ui.backend import Backend, Job
from qsm_ai.ui.submission import METHODS, Submission
from qsm_ai.ui.uploads import File

_SAMPLE_SUFFIXES = (".nii", ".nii.gz", ".json")


@dataclass(frozen=True)
class Entry:
    """A job started or looked at in this session.

    Attributes
    ----------
    id : the API's
    name : what the history calls it
    """

    id: str
    name: str

    @classmethod
    def of(cls, job: Job) -> Self:
        """What the history keeps of a job."""
        method = job.parameters.get("method")
        return cls(job.id, " · ".join([job.name, *([METHODS[method][0]] if method in METHODS else [])]))


def backend() -> Backend:
    """The API, asked on behalf of the visitor."""
    return shared_backend().on_behalf_of(sign_in.credentials())


@st.cache_resource
def shared_backend() -> Backend:
    """The API at ``QSM_API_URL``: one set of connections for all visitors, on behalf of none."""
    return Backend(os.environ.get("QSM_API_URL", "http://127.0.0.1:8000"))


def current_job() -> str | None:
    """Id of the job that is looked at, kept in the page's address; None on the form."""
    return st.query_params.get("job")


def show(job_id: str | None) -> None:
    """Look at a job, or at the form, from the next run on."""
    if job_id is None:
        st.query_params.pop("job", None)
    else:
        st.query_params["job"] = job_id


def history() -> list[Entry]:
    """Jobs started or looked at in this session, newest first."""
    entries: list[Entry] = st.session_state.setdefault("history", [])
    return entries


def remember(job: Job, entries: list[Entry]) -> bool:
    """Put a job on top of the history unless it is there.

    Parameters
    ----------
    job : Job
    entries : list of Entry
        The history. Taken before, so that not even a click that ends the run can come between.

    Returns
    -------
    bool
        Whether it is new.
    """
    if any(entry.id == job.id for entry in entries):
        return False
    entries.insert(0, Entry.of(job))
    return True


def forget(job_id: str) -> None:
    """Take a job out of the history."""
    entries = history()
    entries[:] = [entry for entry in entries if entry.id != job_id]


def request_key(submission: Submission) -> str:
    """The same for one scan of this session until it is known to be sent; then another."""
    visitor = st.session_state.setdefault("visitor", secrets.token_hex(8))
    return submission.key(f"{visitor}/{uploads()}")


def uploads() -> int:
    """Scans sent in this session."""
    number: int = st.session_state.get("uploads", 0)
    return number


def clear_upload() -> None:
    """Let go of the scan that was sent."""
    st.session_state.pop("sample", None)
    st.session_state["uploads"] = uploads() + 1


def sample_folder() -> Path | None:
    """Folder of the sample scan (``QSM_SAMPLE_DIR``), None if there is none."""
    folder = os.environ.get("QSM_SAMPLE_DIR")
    return Path(folder) if folder and Path(folder).is_dir() else None


def sample_files(folder: Path) -> list[File]:
    """The sample's images and sidecars, without what was derived from it."""
    return [
        File(path.name, path.read_bytes())
        for path in sorted(folder.rglob("*"))
        if path.name.endswith(_SAMPLE_SUFFIXES)
        and "derivatives" not in path.relative_to(folder).parts
        and path.name != "dataset_description.json"
    ]
