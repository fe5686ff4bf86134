"""Dropped files sort themselves, and the sidecars fill in the form."""

from __future__ import annotations

import gzip
import json
import struct

import pytest

from qsm_ai.ui.uploads import (
    Acquisition,
    File,
    Header,
    Role,
    in_role,
    read_acquisition,
    read_header,
    sort_files,
)


def named(*names: str) -> list[File]:
    return [File(name, b"{}" if name.endswith(".json") else b"") for name in names]


def sidecar(name: str, **content: object) -> File:
    return File(name, json.dumps(content).encode())


class TestSorting:
    @pytest.mark.parametrize(
        ("name", "role"),
        [
            ("sub-01_echo-1_part-phase_MEGRE.nii.gz", Role.PHASE),
            ("sub-01_echo-1_part-mag_MEGRE.nii.gz", Role.MAGNITUDE),
            ("sub-01_desc-brain_mask.nii.gz", Role.MASK),
            ("sub-01_echo-1_part-phase_MEGRE.json", Role.SIDECAR),
            ("phase.nii.gz", Role.PHASE),
            ("Magnitude.nii", Role.MAGNITUDE),
            ("brainmask.nii.gz", Role.MASK),
            ("phase_mask.nii.gz", Role.MASK),
            ("gre_e2_ph.nii.gz", Role.PHASE),
            ("mag1.nii.gz", Role.MAGNITUDE),
            ("Phase_3.nii", Role.PHASE),
            ("sub-01_Chimap.nii.gz", Role.UNUSED),
        ],
    )
    def test_a_name_tells_the_role(self, name: str, role: Role) -> None:
        assert sort_files(named(name, "phase_echo1.nii", "t1w.nii"))[name] is role

    def test_results_of_a_phase_are_no_phase(self) -> None:
        results = ("Chimap", "Chierror", "R2starmap", "fielderror", "residual")
        roles = sort_files(named("phase.nii.gz", *(f"phase_{suffix}.nii.gz" for suffix in results)))
        assert [name for name, role in roles.items() if role is Role.PHASE] == ["phase.nii.gz"]
        fields = sort_files(named("phase_totalfield.nii.gz", "phase_localfield.nii.gz"))
        assert fields["phase_totalfield.nii.gz"] is Role.TOTAL_FIELD
        assert Role.PHASE not in fields.values()

    def test_words_that_only_contain_a_marker_tell_nothing(self) -> None:
        roles = sort_files(named("graph.nii", "image.nii", "unmasked.nii"))
        assert set(roles.values()) == {Role.UNUSED}

    def test_dcm2niix_names_a_magnitude_by_leaving_out_the_phase_suffix(self) -> None:
        roles = sort_files(named("gre_e1.nii.gz", "gre_e1_ph.nii.gz", "t1.nii.gz"))
        assert roles == {
            "gre_e1.nii.gz": Role.MAGNITUDE,
            "gre_e1_ph.nii.gz": Role.PHASE,
            "t1.nii.gz": Role.UNUSED,
        }

    def test_a_lone_image_is_the_phase(self) -> None:
        assert sort_files(named("scan.nii.gz"))["scan.nii.gz"] is Role.PHASE

    def test_the_image_type_of_a_sidecar_tells_when_the_name_does_not(self) -> None:
        files = [
            File("a.nii", b""),
            sidecar("a.json", ImageType=["ORIGINAL", "PRIMARY", "P", "ND"]),
            File("b.nii", b""),
            sidecar("b.json", ImageType=["ORIGINAL", "PRIMARY", "M", "ND"]),
        ]
        roles = sort_files(files)
        assert (roles["a.nii"], roles["b.nii"]) == (Role.PHASE, Role.MAGNITUDE)

    def test_echoes_follow_their_numbers_not_their_letters(self) -> None:
        files = named(*(f"sub-01_echo-{n}_part-phase_MEGRE.nii.gz" for n in (10, 2, 1)))
        ordered = in_role(files, sort_files(files), Role.PHASE)
        assert [f.name.split("_")[1] for f in ordered] == ["echo-1", "echo-2", "echo-10"]

    def test_a_raised_digit_in_a_name_is_no_number(self) -> None:
        files = named("phase1²3.nii", "phase1.nii")
        assert len(in_role(files, sort_files(files), Role.PHASE)) == 2


class TestSidecars:
    def test_each_phase_takes_the_time_of_its_own_sidecar_in_ms(self) -> None:
        phase = named("e1_ph.nii", "e2_ph.nii")
        sidecars = [
            sidecar("e1_ph.json", EchoTime=0.004, MagneticFieldStrength=3),
            sidecar("e2_ph.json", EchoTime=0.0123, MagneticFieldStrength=3),
            sidecar("e1.json", EchoTime=0.0041),
        ]
        assert read_acquisition(phase, sidecars) == Acquisition((4.0, 12.3), 3.0)

    def test_a_4d_phase_takes_the_list(self) -> None:
        known = read_acquisition(named("phase.nii"), [sidecar("phase.json", EchoTime=[0.004, 0.008])])
        assert known.echo_times_ms == (4.0, 8.0)

    def test_sidecars_of_other_names_give_their_distinct_times_in_order(self) -> None:
        sidecars = [sidecar(f"{n}.json", EchoTime=t) for n, t in (("b", 0.012), ("a", 0.004), ("c", 0.004))]
        assert read_acquisition(named("phase.nii"), sidecars).echo_times_ms == (4.0, 12.0)

    def test_nothing_is_invented(self) -> None:
        assert read_acquisition(named("phase.nii"), [sidecar("phase.json")]) == Acquisition()

    def test_an_unreadable_sidecar_is_named_and_left_aside(self) -> None:
        (note,) = read_acquisition(named("phase.nii"), [File("phase.json", b"\xff{")]).notes
        assert note.startswith("phase.json")

    def test_contradicting_field_strengths_are_left_to_the_person(self) -> None:
        known = read_acquisition(
            [],
            [sidecar("a.json", MagneticFieldStrength=3), sidecar("b.json", MagneticFieldStrength=7)],
        )
        assert known.field_strength is None
        assert known.notes == ("The sidecars give different field strengths.",)

    @pytest.mark.parametrize("value", [True, "0.004", None, [], {"a": 1}, [0.004, "x"]])
    def test_what_is_no_number_is_no_echo_time(self, value: object) -> None:
        assert (
            read_acquisition(named("phase.nii"), [sidecar("phase.json", EchoTime=value)]).echo_times_ms == ()
        )

    @pytest.mark.parametrize("tesla", [0, -3])
    def test_a_field_strength_that_cannot_be_is_unknown(self, tesla: float) -> None:
        file = sidecar("phase.json", MagneticFieldStrength=tesla)
        assert read_acquisition(named("phase.nii"), [file]).field_strength is None

    @pytest.mark.parametrize("value", ["NaN", "-Infinity", "[0.004, NaN]", "1e999", "1" + "0" * 400])
    def test_what_is_not_finite_is_unknown(self, value: str) -> None:
        content = f'{{"EchoTime": {value}, "MagneticFieldStrength": {value.strip("[]").split(", ")[-1]}}}'
        file = File("phase.json", content.encode())
        assert read_acquisition(named("phase.nii"), [file]) == Acquisition()


def nifti1(order: str = "<", dims: tuple[int, ...] = (4, 51, 50, 41, 3, 1, 1, 1)) -> bytes:
    header = bytearray(352)
    struct.pack_into(f"{order}i", header, 0, 348)
    struct.pack_into(f"{order}8h", header, 40, *dims)
    struct.pack_into(f"{order}8f", header, 76, -1, 0.47, 0.47, 1, 1, 1, 1, 1)
    return bytes(header)


def nifti2() -> bytes:
    header = bytearray(540)
    struct.pack_into("<i", header, 0, 540)
    struct.pack_into("<8q", header, 16, 3, 51, 50, 41, 1, 1, 1, 1)
    struct.pack_into("<8d", header, 104, 1, 0.5, 0.5, 1, 1, 1, 1, 1)
    return bytes(header)


class TestHeader:
    @pytest.mark.parametrize("order", ["<", ">"])
    @pytest.mark.parametrize("packed", [False, True])
    def test_nifti1_in_either_byte_order_packed_or_not(self, order: str, packed: bool) -> None:
        content = gzip.compress(nifti1(order)) if packed else nifti1(order)
        header = read_header(content)
        assert header is not None
        assert (header.shape, header.echoes) == ((51, 50, 41), 3)
        assert header.voxel_size == pytest.approx((0.47, 0.47, 1))

    def test_nifti2(self) -> None:
        assert read_header(nifti2()) == Header((51, 50, 41), 1, (0.5, 0.5, 1.0))

    @pytest.mark.parametrize(
        "content",
        [
            b"",
            b"not an image",
            b"\x1f\x8b broken",
            bytes(400),
            gzip.compress(b"text", mtime=0),
            nifti1(dims=(0, 1, 1, 1, 1, 1, 1, 1)),
            nifti1(dims=(3, 0, 1, 1, 1, 1, 1, 1)),
        ],
    )
    def test_anything_else_is_none(self, content: bytes) -> None:
        assert read_header(content) is None

    def test_a_bomb_is_not_unpacked(self) -> None:
        assert read_header(gzip.compress(nifti1() + bytes(50_000_000))) is not None
