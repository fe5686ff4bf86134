"""Every way in which the network cannot answer: what happened, and how to mend it.

::

    InferenceFailure                    code, sentence, mend
    ├── ModelFileMissing              no weights where they should be
    ├── RuntimeMissing                OpenVINO, or what Triton needs, is not installed
    ├── TritonStartFailed             the server did not come up; carries the end of its log
    ├── TritonUnavailable             nobody answers at that address
    │   └── TritonModelDied           the server runs, the process with its model does not
    ├── TritonTimeout                 an answer did not come in time
    ├── TritonModelMissing            the server runs, the model is not loaded
    ├── TritonRefused                 the server has the model and rejects the request
    └── BadAnswer                     an answer came, and it cannot be right
"""

from __future__ import annotations

from typing import ClassVar


class InferenceFailure(Exception):  # noqa: N818 - named like its tree
    """The network cannot answer.

    Parameters
    ----------
    sentence : str
        What happened, in one sentence.
    mend : str
        What whoever runs the service can do about it.
    """

    code: ClassVar[str] = "inference"

    def __init__(self, sentence: str, *, mend: str) -> None:
        super().__init__(sentence)
        self.sentence = sentence
        self.mend = mend

    def __str__(self) -> str:
        return f"{self.sentence} {self.mend}"


class ModelFileMissing(InferenceFailure):
    """No weights where they should be."""

    code = "model-file-missing"


class RuntimeMissing(InferenceFailure):
    """A library that runs the network is not installed."""

    code = "runtime-missing"


class TritonStartFailed(InferenceFailure):
    """The server did not come up."""

    code = "triton-start"


class TritonUnavailable(InferenceFailure):
    """Nobody answers at the server's address."""

    code = "triton-unavailable"


class TritonModelDied(TritonUnavailable):
    """The server runs, but the process with its model was killed; this Triton does not start it again."""

    code = "triton-model-died"


class TritonTimeout(InferenceFailure):
    """An answer did not come in time."""

    code = "triton-timeout"


class TritonModelMissing(InferenceFailure):
    """The server runs, but not this model."""

    code = "triton-model-missing"


class TritonRefused(InferenceFailure):
    """The server rejects the request, or its model failed on it."""

    code = "triton-refused"


class BadAnswer(InferenceFailure):
    """An answer of the wrong shape, or with values that cannot be right."""

    code = "triton-bad-answer"
