"""What went wrong, as people and programs over HTTP are told."""

from __future__ import annotations

from qsm_ai.jobs.problem import Problem
from qsm_ai.scan import EchoTimeRefusal


def test_mends_speak_of_form_fields_over_http() -> None:
    refusal = EchoTimeRefusal(
        "Missing.", mend="Give them with --te-ms (for example --te-ms 4 12), or --b0-direction."
    )
    assert (
        Problem.from_refusal(refusal).mend
        == "Give them with te_ms (for example te_ms 4 12), or b0_direction."
    )
