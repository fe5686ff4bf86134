"""Results lie on the input's grid, carry nothing personal, and appear all or not at all."""

from __future__ import annotations

import hashlib
import io
import json
import os
import re
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import jsonschema
import nibabel as nib
import numpy as np
import pytest
from PIL import Image

from qsm_ai.io import load_scan, write_outputs
from qsm_ai.io import outputs as outputs_module
from qsm_ai.io.methods import methods_paragraph
from qsm_ai.io.outputs import encode_nifti, older_results, picture, require_apart, require_writable
from qsm_ai.io.report import Report, make_report
from qsm_ai.reconstruction.options import Options
from qsm_ai.reconstruction.pipeline import PASSES, Reconstruction, reconstruct
from qsm_ai.reconstruction.stages import ARTEFACTS
from qsm_ai.scan import Grid, OutputRefusal, Scan

if TYPE_CHECKING:
    from tests.conftest import Files, Phantom


@pytest.fixture(scope="module")
def done(files: Files) -> tuple[Scan, Reconstruction]:
    scan = load_scan(files.echo_phase, files.echo_magnitude, files.mask)
    return scan, reconstruct(scan, Options("tkd"))


def test_every_artefact_has_its_file_and_there_are_reports_and_a_picture(
    done: tuple[Scan, Reconstruction], tmp_path: Path
) -> None:
    written = write_outputs(*done, tmp_path / "new" / "folder")
    names = sorted(path.name for path in (tmp_path / "new" / "folder").iterdir())
    assert names == sorted(
        [f"sub-1_{a.suffix}.nii.gz" for a in ARTEFACTS.values() if a.name != "chi_uncertainty"]
        + ["sub-1_Chimap.png", "sub-1_qsm.html", "sub-1_qsm.json"]
    )
    assert set(written) == {*ARTEFACTS, "page", "picture", "report"} - {"chi_uncertainty"}
    chi = nib.load(written["chi"])
    assert chi.get_data_dtype() == np.float32
    np.testing.assert_array_equal(np.asarray(chi.dataobj), done[1].chi)
    mask = nib.load(written["mask"])
    assert mask.get_data_dtype() == np.uint8
    np.testing.assert_array_equal(np.asarray(mask.dataobj), done[1].artefacts["mask"])


def test_the_geometry_of_the_input_is_kept_to_the_bit(
    done: tuple[Scan, Reconstruction], files: Files, tmp_path: Path
) -> None:
    written = write_outputs(*done, tmp_path)
    before, after = nib.load(files.echo_phase[0]).header, nib.load(written["chi"]).header
    for key in ("qform_code", "sform_code", "quatern_b", "quatern_c", "quatern_d", "qoffset_x", "qoffset_y",
                "qoffset_z", "srow_x", "srow_y", "srow_z", "xyzt_units"):  # fmt: skip
        np.testing.assert_array_equal(before[key], after[key], err_msg=key)
    np.testing.assert_array_equal(before["pixdim"][:4], after["pixdim"][:4])


@pytest.mark.parametrize(("qform_code", "sform_code"), [(1, 0), (0, 1), (1, 4), (2, 1)])
def test_the_codes_of_both_forms_survive(
    files: Files, phantom: Phantom, tmp_path: Path, qform_code: int, sform_code: int
) -> None:
    image = nib.Nifti1Image(np.moveaxis(phantom.phase, 0, -1), None)
    image.set_qform(phantom.affine, code=qform_code)
    moved = phantom.affine @ np.diag([1, 1, 1, 1.0])
    moved[0, 3] += 5
    image.set_sform(moved if sform_code else None, code=sform_code)
    nib.save(image, tmp_path / "p.nii")
    scan = load_scan([tmp_path / "p.nii"], te_ms=[4, 8, 12], b0=3)
    back = nib.Nifti1Image.from_bytes(_unzipped(encode_nifti(phantom.chi, scan.grid)))
    assert (int(back.header["qform_code"]), int(back.header["sform_code"])) == (qform_code, sform_code)
    np.testing.assert_allclose(back.affine, nib.load(tmp_path / "p.nii").affine)
    if qform_code:
        np.testing.assert_allclose(back.get_qform(), image.get_qform(), atol=1e-5)


def test_nothing_personal_is_passed_on(done: tuple[Scan, Reconstruction], tmp_path: Path) -> None:
    for path in write_outputs(*done, tmp_path).values():
        content = path.read_bytes()
        if path.name.endswith(".gz"):
            content = _unzipped(content)
        # Three letters come together by chance in pictures that are told as text.
        content = re.sub(rb"base64,[^\"]+", b"", content)
        for word in (b"Doe", b"1970", b"hospital", str(tmp_path).encode()):
            assert word not in content, path.name


def test_the_same_result_is_written_as_the_same_bytes(phantom: Phantom) -> None:
    grid = Grid(phantom.chi.shape, phantom.affine)
    first, second = (hashlib.sha256(encode_nifti(phantom.chi, grid)).hexdigest() for _ in range(2))
    assert first == second
    back = nib.Nifti1Image.from_bytes(_unzipped(encode_nifti(phantom.chi, grid)))
    np.testing.assert_allclose(back.affine, phantom.affine, atol=1e-6)


def test_the_report_tells_everything(done: tuple[Scan, Reconstruction], tmp_path: Path) -> None:
    written = write_outputs(*done, tmp_path, {"reading": 1.5})
    content = json.loads(written["report"].read_text())
    jsonschema.validate(content, Report.model_json_schema())
    assert Report.model_validate(content).name == "sub-1"
    assert content["timings_s"]["reading"] == 1.5
    assert content["timings_s"]["writing"] > 0
    assert set(done[1].timings) <= set(content["timings_s"])
    assert content["total_s"] == pytest.approx(sum(content["timings_s"].values()), abs=0.01)
    assert content["scan"]["echo_times_s"] == [0.004, 0.008, 0.012]
    assert content["scan"]["sources"]["echo_times"] == "sidecar"
    assert content["scan"]["mask"] == "given"
    assert content["options"]["method"] == "tkd"
    assert 0 < content["scores"]["physics_check"]["value"] <= 1
    assert content["scores"]["physics_check"]["meaning"]
    assert content["versions"]["qsm-ai"]
    for artefact in content["artefacts"].values():
        assert (tmp_path / artefact["file"]).is_file()


def test_the_methods_paragraph_cites_every_step_and_the_consensus(done: tuple[Scan, Reconstruction]) -> None:
    report = make_report(*done)
    dois = {citation.doi for citation in report.citations}
    assert {"10.1002/mrm.30006", "10.1002/mrm.28563", "10.1002/nbm.3601", "10.1002/nbm.1670",
            "10.1002/mrm.22135"} <= dois  # fmt: skip
    for citation in report.citations:
        assert f"[{citation.number}]" in report.methods
    assert "TE 4, 8, 12 ms" in report.methods
    assert "relative to the mean of the brain mask" in report.methods


@pytest.mark.parametrize("method", ["qsm-vit", "tkd", "tikhonov", "tv"])
@pytest.mark.parametrize("start", ["phase", "total_field", "local_field"])
def test_a_methods_paragraph_exists_for_every_way(
    done: tuple[Scan, Reconstruction], files: Files, method: str, start: str
) -> None:
    scan = done[0]
    if start != "phase":
        scan = load_scan(mask_file=files.mask, **{start: files.local_field})
    for background in ("lbv", "pdf", "v-sharp"):
        options = replace(Options(), method=method, background=background, reference="none")
        text, citations = methods_paragraph(scan, options, "qsm_vit 1")
        assert ("LBV" in text) == (background == "lbv" and start != "local_field")
        assert ("QSM-ViT (qsm_vit 1)" in text) == (method == "qsm-vit")
        again = method == "qsm-vit" and background != "v-sharp" and start != "local_field"
        assert (f"in {PASSES} passes" in text) == again
        guided = method == "qsm-vit" and scan.magnitude is not None
        assert ("where the magnitude does" in text) == ("to the edges of the magnitude" in text) == guided
        assert all(f"[{i}]" in text for i in range(1, len(citations) + 1))
        assert text.endswith("without referencing.")


def test_the_picture_shows_three_planes(done: tuple[Scan, Reconstruction]) -> None:
    image = Image.open(io.BytesIO(picture(*done)))
    assert image.format == "PNG"
    assert image.width > 600
    values = np.asarray(image.convert("L"))
    assert np.unique(values).size > 100


def test_the_methods_tell_what_is_done_about_sources_outside(files: Files) -> None:
    beside = {"mask_file": files.mask, "magnitude_files": files.echo_magnitude[:1]}
    total = load_scan(total_field=files.local_field, **beside)
    local = load_scan(local_field=files.local_field, **beside)
    told = {
        (start, background): methods_paragraph(scan, Options(background=background), "qsm_vit 1")[0]
        for start, scan in (("total", total), ("local", local))
        for background in ("pdf", "lbv")
    }
    assert {key for key, text in told.items() if "shells" in text} == {("total", "pdf")}
    assert {key for key, text in told.items() if "outside the mask being penalised" in text} == {
        ("local", "pdf"),
        ("local", "lbv"),
    }


@pytest.mark.parametrize("echoes", [1, 3])
def test_the_methods_tell_of_one_echo_and_of_no_magnitude_what_is_true_of_them(
    files: Files, echoes: int
) -> None:
    scan = load_scan(files.echo_phase[:echoes])
    text, citations = methods_paragraph(scan, Options("tkd"), None)
    several = echoes > 1
    assert ("linear fit over the echoes with a phase offset" in text) == several
    assert ("as templates" in text) == several
    assert ("the phase over the echo time" in text) != several
    assert ("10.1002/nbm.3601" in {citation.doi for citation in citations}) == several
    assert "The brain mask was made from phase quality." in text


def test_volumes_of_an_earlier_run_do_not_pass_for_those_of_the_new_one(
    done: tuple[Scan, Reconstruction], tmp_path: Path
) -> None:
    scan, without = done
    error = np.ones(scan.grid.shape, np.float32)
    with_error = replace(without, artefacts={**without.artefacts, "chi_uncertainty": error})
    older = write_outputs(scan, with_error, tmp_path)["chi_uncertainty"]
    for name in ("sub-1_T1w.nii.gz", "sub-2_Chierror.nii.gz"):
        (tmp_path / name).write_text("somebody else's")
    written = write_outputs(scan, without, tmp_path)
    assert not older.exists()
    kept = {"sub-1_T1w.nii.gz", "sub-2_Chierror.nii.gz"}
    assert {path.name for path in tmp_path.iterdir()} == {path.name for path in written.values()} | kept


@pytest.mark.parametrize(
    "report", ["", "[]", '{"artefacts": 1}', '{"artefacts": {"mask": {"file": "../sub-1_mask.nii.gz"}}}']
)
def test_what_no_report_lists_as_its_own_is_left_alone(tmp_path: Path, report: str) -> None:
    (tmp_path / "sub-1_qsm.json").write_text(report)
    assert older_results(tmp_path / "sub-1_qsm.json", []) == []
    assert older_results(tmp_path / "sub-2_qsm.json", []) == []


def test_what_was_given_is_not_replaced_by_a_result(tmp_path: Path) -> None:
    mask = tmp_path / "sub-1_mask.nii.gz"
    mask.write_text("labels by hand")
    (tmp_path / "link").symlink_to(tmp_path)
    for folder in (tmp_path, tmp_path / "link"):
        with pytest.raises(OutputRefusal, match="would replace it") as caught:
            require_writable(folder, "sub-1", [None, mask])
        assert caught.value.file == mask.name
    require_writable(tmp_path, "sub-2", [mask])
    require_writable(tmp_path / "out", "sub-1", [mask])
    require_apart([tmp_path / "sub-1_Chimap.nii.gz"], [mask, None])


def test_a_failure_leaves_the_folder_as_it_was(
    done: tuple[Scan, Reconstruction], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> bytes:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(outputs_module, "picture", full)
    (tmp_path / "kept").mkdir()
    (tmp_path / "kept" / "mine.txt").write_text("mine")
    for folder in (tmp_path / "kept", tmp_path / "a" / "b"):
        with pytest.raises(OutputRefusal, match="could not be written"):
            write_outputs(*done, folder)
    assert [p.relative_to(tmp_path).as_posix() for p in sorted(tmp_path.rglob("*"))] == [
        "kept",
        "kept/mine.txt",
    ]


def test_an_interruption_leaves_nothing_either(
    done: tuple[Scan, Reconstruction], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(*_: object) -> bytes:
        raise KeyboardInterrupt

    monkeypatch.setattr(outputs_module, "picture", interrupted)
    with pytest.raises(KeyboardInterrupt):
        write_outputs(*done, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_place_that_is_no_folder_is_refused_before_any_work(tmp_path: Path) -> None:
    require_writable(tmp_path / "a" / "b")
    assert not (tmp_path / "a").exists()
    (tmp_path / "file").write_text("x")
    for place in (tmp_path / "file", tmp_path / "file" / "below"):
        with pytest.raises(OutputRefusal):
            require_writable(place)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_folder_without_permission_is_refused(tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    with pytest.raises(OutputRefusal, match="cannot be written"):
        require_writable(tmp_path / "out")


def _unzipped(content: bytes) -> bytes:
    import gzip

    return gzip.decompress(content)


def test_a_link_that_leads_nowhere_is_refused_before_the_work(tmp_path: Path) -> None:
    (tmp_path / "out").symlink_to(tmp_path / "gone")
    for folder in (tmp_path / "out", tmp_path / "out" / "below"):
        with pytest.raises(OutputRefusal, match="leads nowhere"):
            require_writable(folder)
    (tmp_path / "gone").mkdir()
    require_writable(tmp_path / "out")


def test_a_name_that_no_folder_can_have_is_refused(tmp_path: Path) -> None:
    with pytest.raises(OutputRefusal, match="shorter"):
        require_writable(tmp_path / ("a" * 300))


def test_a_folder_that_may_not_be_entered_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def denied(*_: object, **__: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "exists", denied)
    with pytest.raises(OutputRefusal, match="of your own"):
        require_writable(tmp_path / "out")


@pytest.mark.parametrize("suffix", ["qsm.json", "qsm.html", "Chimap.png", "Chimap.nii.gz"])
def test_a_folder_in_the_place_of_a_result_is_refused_and_nothing_is_written(
    done: tuple[Scan, Reconstruction], tmp_path: Path, suffix: str
) -> None:
    (tmp_path / f"sub-1_{suffix}").mkdir()
    with pytest.raises(OutputRefusal) as caught:
        require_writable(tmp_path, "sub-1")
    assert caught.value.file == f"sub-1_{suffix}"
    with pytest.raises(OutputRefusal, match="Move it away"):
        write_outputs(*done, tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == [f"sub-1_{suffix}"]
    require_writable(tmp_path, "sub-2")
