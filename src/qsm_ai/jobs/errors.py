"""Why something cannot be done to jobs, or with their database.

::

    JobNotFoundError (LookupError)    no job has this id, or not for this owner
    QueueFullError                    as many jobs wait as may wait
    OwnerLimitError                   one owner has as many unfinished jobs as one may have
    OwnerStorageError                 one owner's files take up as much as those of one may
    UploadGoneError (LookupError)     a job was to be made of an upload that is not there any more
    TooLargeForWorkersError           no worker has the memory for it
    IdempotencyConflictError          the same key came before, with another upload
    WrongStateError                   the job is not in a state in which this can be done to it
    DatabaseMismatchError             the database has another schema than this program
"""

from __future__ import annotations

from qsm_ai.jobs.records import State


class JobNotFoundError(LookupError):
    """No job has this id (or not for this owner)."""


class QueueFullError(RuntimeError):
    """As many jobs wait as may wait."""


class OwnerLimitError(RuntimeError):
    """The owner has as many unfinished jobs as one may have.

    Attributes
    ----------
    limit : int
    """

    def __init__(self, limit: int) -> None:
        super().__init__(f"{limit} jobs are unfinished")
        self.limit = limit


class OwnerStorageError(RuntimeError):
    """The owner's uploads and results would take up more than those of one may."""


class UploadGoneError(LookupError):
    """A job was to be made of an upload that does not exist, is used already, or has expired.

    Attributes
    ----------
    upload_id : str
    """

    def __init__(self, upload_id: str) -> None:
        super().__init__(upload_id)
        self.upload_id = upload_id


class TooLargeForWorkersError(RuntimeError):
    """The job needs more memory than any worker gives to one.

    Attributes
    ----------
    needed_mb, largest_mb : int
    """

    def __init__(self, needed_mb: int, largest_mb: int) -> None:
        super().__init__(f"{needed_mb} MiB are needed, {largest_mb} MiB are there")
        self.needed_mb, self.largest_mb = needed_mb, largest_mb


class IdempotencyConflictError(RuntimeError):
    """The owner has sent this idempotency key before, with another upload or other parameters.

    Attributes
    ----------
    job_id : str
        The job that has the key.
    """

    def __init__(self, job_id: str) -> None:
        super().__init__("the idempotency key is taken")
        self.job_id = job_id


class WrongStateError(RuntimeError):
    """The job is not in a state in which this can be done to it."""

    def __init__(self, state: State) -> None:
        super().__init__(f"the job is {state.value}")
        self.state = state


class DatabaseMismatchError(RuntimeError):
    """The database has another schema than this program; the message says what to do."""
