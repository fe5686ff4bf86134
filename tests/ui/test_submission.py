"""What is asked of the API, and the command line that does the same."""

from __future__ import annotations

from dataclasses import replace

import pytest

from qsm_ai.ui.command import command_line
from qsm_ai.ui.submission import BACKGROUNDS, UNWRAPPINGS, Submission
from qsm_ai.ui.uploads import File, Role

PHASE = [File(f"sub-01_echo-{n}_part-phase_MEGRE.nii.gz", b"p") for n in (1, 2)]
MAGNITUDE = [File(f"sub-01_echo-{n}_part-mag_MEGRE.nii.gz", b"m") for n in (1, 2)]
MASK = [File("mask.nii", b"k")]
SIDECARS = [File("sub-01_echo-1_part-phase_MEGRE.json", b"{}")]


def submission() -> Submission:
    return Submission(
        files={
            Role.PHASE: PHASE,
            Role.MAGNITUDE: MAGNITUDE,
            Role.MASK: MASK,
            Role.SIDECAR: SIDECARS,
            Role.UNUSED: [File("t1.nii", b"")],
        },
        echo_times_ms=(4.0, 12.3),
        field_strength=3.0,
        b0_direction=(0.0, 0.2, 0.98),
    )


class TestSubmission:
    def test_sends_every_file_in_its_field_and_leaves_unused_ones_out(self) -> None:
        assert [(role, part[0]) for role, part in submission().parts()] == [
            ("phase", PHASE[0].name),
            ("phase", PHASE[1].name),
            ("magnitude", MAGNITUDE[0].name),
            ("magnitude", MAGNITUDE[1].name),
            ("mask", "mask.nii"),
            ("sidecar", SIDECARS[0].name),
        ]

    def test_says_what_was_chosen(self) -> None:
        assert submission().fields() == {
            "te_ms": "4 12.3",
            "b0": "3",
            "b0_direction": "0 0.2 0.98",
            "method": "qsm-vit",
            "reference": "mean",
            "unwrapping": "path",
            "background": "pdf",
            "phase_sign": "auto",
        }

    def test_leaves_out_what_is_unknown(self) -> None:
        fields = Submission(files={Role.LOCAL_FIELD: [File("f.nii", b"")]}).fields()
        assert not {"te_ms", "b0", "b0_direction"} & set(fields)

    def test_the_first_choice_on_the_page_is_the_default(self) -> None:
        assert next(iter(BACKGROUNDS)) == submission().background
        assert next(iter(UNWRAPPINGS)) == submission().unwrapping

    def test_its_key_is_that_of_the_same_scan_choices_and_occasion_alone(self) -> None:
        one = submission()
        other_bytes = replace(one, files={**one.files, Role.PHASE: [PHASE[0], File(PHASE[1].name, b"q")]})
        others = [replace(one, method="tv"), replace(one, files={Role.PHASE: PHASE}), other_bytes]
        assert one.key("a") == submission().key("a")
        assert len({one.key("a"), one.key("b"), *(other.key("a") for other in others)}) == 5

    def test_what_it_takes_where_nothing_is_chosen_is_the_services_default(self) -> None:
        options = pytest.importorskip("qsm_ai.reconstruction.options").Options().as_dict()
        fields = Submission(files={}).fields()
        assert {name: fields[name] for name in options} == options


class TestCommand:
    def test_repeats_the_job(self) -> None:
        files = [(role, part[0]) for role, part in submission().parts()]
        parameters = {
            "te_ms": [4.0, 12.3],
            "b0": 3.0,
            "b0_direction": [0.0, 0.2, 0.98],
            "method": "tv",
            "reference": "none",
            "unwrapping": "path",
            "background": "lbv",
            "phase_sign": "negative",
        }
        assert command_line(files, parameters).replace("\\\n    ", "") == (
            "qsm-ai reconstruct "
            "sub-01_echo-1_part-phase_MEGRE.nii.gz sub-01_echo-2_part-phase_MEGRE.nii.gz "
            "--magnitude sub-01_echo-1_part-mag_MEGRE.nii.gz sub-01_echo-2_part-mag_MEGRE.nii.gz "
            "--mask mask.nii "
            "--te-ms 4 12.3 --b0 3 --b0-direction 0 0.2 0.98 --phase-sign negative "
            "--method tv --reference none --background lbv "
            "--output qsm"
        )

    def test_names_a_choice_only_where_the_command_line_would_take_another(self) -> None:
        module = pytest.importorskip("qsm_ai.reconstruction.options")
        known = {"unwrapping": module.UNWRAPPINGS, "background": module.BACKGROUNDS}
        defaults = module.Options().as_dict()
        for name, choices in known.items():
            named = {c for c in choices if f"--{name} {c}" in command_line([("phase", "p.nii")], {name: c})}
            assert named == set(choices) - {defaults[name]}

    def test_quotes_names_that_a_shell_would_split_or_run(self) -> None:
        command = command_line([("phase", "my scan; rm -rf.nii")], {})
        assert "'my scan; rm -rf.nii'" in command

    def test_starts_from_a_field_where_the_job_did(self) -> None:
        command = command_line([("local_field", "f.nii"), ("mask", "m.nii")], {"method": "tkd"})
        assert "--local-field f.nii" in command
        assert "reconstruct \\" in command
