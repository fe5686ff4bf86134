"""The command line, as people use it and as they misuse it."""

from __future__ import annotations

import gzip
import json
import os
import shutil
import signal
import struct
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import nibabel as nib
import numpy as np
import pytest
from click.testing import Result as ClickResult
from typer.testing import CliRunner

from qsm_ai import __version__
from qsm_ai.cli import app
from qsm_ai.reconstruction.stages import STAGES

if TYPE_CHECKING:
    from tests.conftest import Files, Phantom

PROGRAM = Path(sys.executable).with_name("qsm-ai")
SHARED = Path(os.environ.get("QSM_SHARED_DATA", Path(__file__).parents[2] / "shared" / "data"))
TIMES = ["--te-ms", "4", "8", "12"]


def qsm_ai(*arguments: object) -> ClickResult:
    return CliRunner().invoke(app, [str(a) for a in arguments])


@pytest.fixture
def out(tmp_path: Path) -> Path:
    return tmp_path / "out"


def test_version_and_help() -> None:
    assert qsm_ai("--version").output == f"qsm-ai {__version__}\n"
    shown = qsm_ai("reconstruct", "--help").output
    for option in ("--magnitude", "--mask", "--te-ms", "--b0", "--b0-direction", "--reference", "--method",
                   "--output", "--total-field", "--local-field", "--triton"):  # fmt: skip
        assert option in shown
    assert "reconstruct" in qsm_ai("--help").output


def test_the_way_of_the_issue(files: Files, phantom: Phantom, out: Path) -> None:
    done = qsm_ai(
        "reconstruct", files.phase, "--magnitude", files.magnitude, "--mask", files.mask, *TIMES,
        "--b0", "3.0", "--b0-direction", *phantom.b0_direction, "--reference", "none", "--method", "tkd",
        "--output", out,
    )  # fmt: skip
    assert done.exit_code == 0, done.output
    names = {path.name for path in out.iterdir()}
    assert {
        f"phase_{s}.nii.gz" for s in ("Chimap", "mask", "localfield", "totalfield", "R2starmap", "residual")
    } < (names)
    assert {"phase_qsm.json", "phase_Chimap.png"} < names
    report = json.loads((out / "phase_qsm.json").read_text())
    assert report["options"] == {
        "method": "tkd", "reference": "none", "unwrapping": "path", "background": "pdf"
    }  # fmt: skip
    assert report["scan"]["sources"]["b0_direction"] == "option"
    assert str(out / "phase_Chimap.nii.gz") in done.stdout
    for stage in STAGES:
        assert (stage.title in done.stderr) == (stage.name in report["timings_s"])


def test_one_file_per_echo_with_sidecars_gives_the_same_map_as_one_file(files: Files, out: Path) -> None:
    one = qsm_ai(
        "reconstruct", *files.echo_phase, "--magnitude", *files.echo_magnitude, "--method=tkd", "-o", out
    )
    two = qsm_ai("reconstruct", files.phase, "--magnitude", files.magnitude, "--te-ms=4,8,12", "--b0=3",
                 "--method=tkd", "-o", out)  # fmt: skip
    assert (one.exit_code, two.exit_code) == (0, 0), one.output + two.output
    a, b = (nib.load(out / f"{name}_Chimap.nii.gz").get_fdata() for name in ("sub-1", "phase"))
    np.testing.assert_allclose(a, b, atol=1e-6)


@pytest.mark.parametrize("order", ["phase last", "phase after --"])
def test_the_phase_may_come_after_the_magnitude(files: Files, out: Path, order: str) -> None:
    end = ["--", files.phase] if order == "phase after --" else [files.phase]
    done = qsm_ai(
        "reconstruct", *TIMES, "--b0", 3, "--method", "tkd", "-o", out, "--magnitude", files.magnitude, *end
    )
    assert done.exit_code == 0, done.output
    assert (out / "phase_R2starmap.nii.gz").is_file()


@pytest.mark.parametrize("kind", ["total", "local"])
def test_fields_start_further_down(files: Files, out: Path, kind: str) -> None:
    field = files.total_field if kind == "total" else files.local_field
    done = qsm_ai(
        "reconstruct", f"--{kind}-field", field, "--mask", files.mask, "--method", "tikhonov", "-o", out
    )
    assert done.exit_code == 0, done.output
    timings = json.loads((out / f"{kind}_qsm.json").read_text())["timings_s"]
    assert ("background" in timings) == (kind == "total")
    assert "field_mapping" not in timings


def test_quiet_means_quiet(files: Files, out: Path) -> None:
    done = qsm_ai("reconstruct", "--local-field", files.local_field, "--mask", files.mask, "--method", "tkd",
                  "-q", "-o", out)  # fmt: skip
    assert done.exit_code == 0
    assert done.stderr == ""


def test_the_name_can_be_chosen_and_leads_nowhere(files: Files, out: Path) -> None:
    done = qsm_ai("reconstruct", "--local-field", files.local_field, "--mask", files.mask, "--method", "tkd",
                  "--name", "../../mine", "-o", out)  # fmt: skip
    assert done.exit_code == 0, done.output
    assert (out / "mine_Chimap.nii.gz").is_file()


Misuse = Callable[["Files", "Phantom", Path], list[object]]


def _saved(path: Path, volume: np.ndarray, affine: np.ndarray) -> Path:
    nib.save(nib.Nifti1Image(volume, affine), path)
    return path


def _bytes(path: Path, content: bytes) -> Path:
    path.write_bytes(content)
    return path


def _header_with(files: Files, offset: int, form: str, *values: int) -> bytes:
    content = bytearray(gzip.decompress(files.phase.read_bytes()))
    struct.pack_into("<" + form, content, offset, *values)
    return bytes(content)


def _last(series: np.ndarray) -> np.ndarray:
    return np.moveaxis(series, 0, -1)


GOOD = [*TIMES, "--b0", "3"]
MISUSES: dict[str, tuple[Misuse, str]] = {
    "not a NIfTI": (lambda f, p, d: [_bytes(d / "a.nii", b"hello " * 99), *GOOD], "is not a NIfTI"),
    "truncated gzip": (
        lambda f, p, d: [_bytes(d / "a.nii.gz", f.phase.read_bytes()[:-5000]), *GOOD], "ends too early"),
    "0 dimensions": (
        lambda f, p, d: [_bytes(d / "a.nii", _header_with(f, 40, "h", 0)), *GOOD], "0 dimensions"),
    "5 dimensions": (
        lambda f, p, d: [_bytes(d / "a.nii", _header_with(f, 40, "h", 5)), *GOOD], "5 dimensions"),
    "magnitude of another shape": (
        lambda f, p, d: [f.phase, *GOOD,
        "--magnitude", _saved(d / "m.nii", _last(p.magnitude)[2:], p.affine)],
        "different sizes"),
    "magnitude of another affine": (
        lambda f, p, d: [f.phase, *GOOD, "--magnitude", _saved(d / "m.nii", _last(p.magnitude), np.eye(4))],
        "different places"),
    "echo times missing": (lambda f, p, d: [f.phase, "--b0", "3"], "echo times are missing"),
    "wrong number of echo times": (
        lambda f, p, d: [f.phase, "--b0", "3", "--te-ms", "4", "8"], "2 echo times for 3"),
    "echo times not increasing": (
        lambda f, p, d: [f.phase, "--b0", "3", "--te-ms", "12", "8", "4"], "do not increase"),
    "seconds given as milliseconds": (
        lambda f, p, d: [f.phase, "--b0", "3", "--te-ms", ".004", ".008", ".012"], "look like seconds"),
    "milliseconds in the sidecar": (
        lambda f, p, d: [f.phase, "--b0", "3",
        "--sidecar", _bytes(d / "s.json", b'{"EchoTime": [4, 8, 12]}')],
        "look like milliseconds"),
    "phase that is a magnitude": (lambda f, p, d: [f.magnitude, *GOOD], "magnitude"),
    "phase all zeros": (
        lambda f, p, d: [_saved(d / "p.nii", 0 * _last(p.phase), p.affine), *GOOD], "all zeros"),
    "phase all NaN": (lambda f, p, d: [_saved(d / "p.nii", np.nan * _last(p.phase), p.affine), *GOOD], "NaN"),
    "mask empty": (
        lambda f, p, d: [f.phase, *GOOD, "--mask", _saved(d / "m.nii", 0 * p.chi, p.affine)], "is empty"),
    "mask of another grid": (
        lambda f, p, d: [f.phase, *GOOD, "--mask", _saved(d / "m.nii", p.chi[3:], p.affine)],
        "different sizes"),
    "gzip bomb": (
        lambda f, p, d: [_bytes(d / "b.nii.gz", gzip.compress(
            gzip.decompress(f.phase.read_bytes()) + bytes(48 << 20), 1)), *GOOD], "far more data"),
    "header of a giant": (
        lambda f, p, d: [_bytes(d / "b.nii.gz", gzip.compress(_header_with(f, 42,
        "3h", 3000, 3000, 3000))), *GOOD],
        "more than the limit"),
    "a file that is not there": (lambda f, p, d: [d / "none.nii", *GOOD], "does not exist"),
    "a file that is not there, and nothing said of it": (lambda f, p, d: [d / "none.nii"], "does not exist"),
    "field strength missing": (lambda f, p, d: [f.phase, *TIMES], "field strength is missing"),
    "nothing to reconstruct": (lambda f, p, d: [*GOOD], "Nothing to reconstruct"),
    "field without mask": (lambda f, p, d: ["--local-field", f.local_field], "without a mask"),
    "direction without length": (
        lambda f, p, d: [f.phase, *GOOD, "--b0-direction", "0", "0", "0"], "not all zero"),
    "a word as echo time": (lambda f, p, d: [f.phase, "--b0", "3", "--te-ms", "short"], "'--te-ms'"),
    "a method that does not exist": (lambda f, p, d: [f.phase, *GOOD, "--method", "magic"], "magic"),
    "an empty folder as DICOM": (lambda f, p, d: [_folder(d / "dicom")], "no DICOM images"),
    "a zip that is none": (lambda f, p, d: [_bytes(d / "a.zip", b"PK nothing")], "zip"),
}  # fmt: skip


def _folder(path: Path) -> Path:
    path.mkdir()
    return path


@pytest.mark.parametrize("what", MISUSES)
def test_misuse_is_one_sentence_with_a_mend_and_leaves_nothing_behind(
    what: str, files: Files, phantom: Phantom, tmp_path: Path, out: Path
) -> None:
    arguments, expected = MISUSES[what]
    done = qsm_ai("reconstruct", *arguments(files, phantom, tmp_path), "-q", "-o", out)
    assert done.exit_code == 2, done.output
    assert expected in " ".join(done.stderr.replace("│", " ").split()), done.stderr
    assert "Traceback" not in done.output
    assert str(tmp_path) not in done.stderr
    assert done.stdout == ""
    assert not out.exists()


def test_a_file_over_the_size_limit_is_refused_unread(files: Files, tmp_path: Path, out: Path) -> None:
    huge = tmp_path / "huge.nii"
    with huge.open("wb") as file:
        file.truncate((1 << 30) + 1)
    started = time.perf_counter()
    done = qsm_ai("reconstruct", huge, *GOOD, "-q", "-o", out)
    assert done.exit_code == 2
    assert "larger than the limit" in done.stderr
    assert time.perf_counter() - started < 5
    assert not out.exists()


def test_an_output_that_is_a_file_is_refused(files: Files, tmp_path: Path) -> None:
    done = qsm_ai(
        "reconstruct", files.phase, *GOOD, "--method", "tkd", "-q", "-o", _bytes(tmp_path / "x", b"")
    )
    assert done.exit_code == 2
    assert "--output" in done.stderr


def test_a_mask_in_the_output_is_not_written_over(files: Files, out: Path) -> None:
    out.mkdir()
    mask = out / "local_mask.nii.gz"
    shutil.copy(files.mask, mask)
    before = mask.read_bytes()
    done = qsm_ai(
        "reconstruct", "--local-field", files.local_field, "--mask", mask, "--method", "tkd", "-o", out
    )
    assert done.exit_code == 2, done.output
    assert "local_mask.nii.gz: was given" in done.stderr
    assert [path.name for path in out.iterdir()] == [mask.name]
    assert mask.read_bytes() == before


def test_a_sample_into_a_file_names_no_option_that_there_is_not(tmp_path: Path) -> None:
    done = qsm_ai("sample", _bytes(tmp_path / "x", b""))
    assert done.exit_code == 2
    assert "no folder" in done.stderr
    assert "--output" not in done.stderr


def test_a_triton_that_is_not_there_is_said_before_the_work(files: Files, out: Path) -> None:
    started = time.perf_counter()
    done = qsm_ai("reconstruct", files.phase, *GOOD, "--triton", "127.0.0.1:9", "-o", out)
    assert done.exit_code == 1, done.output
    assert "Traceback" not in done.output
    assert STAGES[1].title not in done.stderr
    assert time.perf_counter() - started < 60
    assert not out.exists()


def test_an_error_of_ours_is_a_sentence_too(files: Files, out: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object, **__: object) -> None:
        raise RuntimeError("Doe^Jane")

    monkeypatch.setattr("qsm_ai.io.loading.load_scan", broken)
    done = qsm_ai("reconstruct", files.phase, *GOOD, "-o", out)
    assert done.exit_code == 1
    assert "RuntimeError" in done.stderr
    assert "Doe" not in done.output


def test_the_program_itself(files: Files, out: Path) -> None:
    done = subprocess.run(
        [PROGRAM, "reconstruct", *files.echo_phase, "--magnitude", *files.echo_magnitude,
         "--mask", files.mask, "--method", "tkd", "--output", out],
        capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert (out / "sub-1_Chimap.nii.gz").is_file()
    refused = subprocess.run(
        [PROGRAM, "reconstruct", files.magnitude, *GOOD, "--output", out / "two"],
        capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip
    assert refused.returncode == 2
    assert "Traceback" not in refused.stderr
    assert not (out / "two").exists()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_program_leaves_nothing(
    phantom: Phantom, tmp_path: Path, out: Path, number: signal.Signals
) -> None:
    if signal.getsignal(number) is signal.SIG_IGN:
        pytest.skip("these tests run in the background of a script, deaf to it, and so would what they start")
    big = np.pad(phantom.local_field, 60)
    field = _saved(tmp_path / "f.nii", big, phantom.affine)
    mask = _saved(tmp_path / "m.nii", np.pad(np.ones(phantom.mask.shape, np.uint8), 60), phantom.affine)
    running = subprocess.Popen(
        [PROGRAM, "reconstruct", "--local-field", field, "--mask", mask, "--method", "tv", "--output", out],
        stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert running.stderr is not None
    lines = []
    for line in running.stderr:
        lines.append(line)
        if "Inverting" in line:
            break
    running.send_signal(number)
    rest = running.stderr.read()
    running.stderr.close()
    assert running.wait(timeout=60) == 130, lines
    assert "Cancelled" in rest
    assert "Traceback" not in rest
    assert not out.exists()


@pytest.mark.skipif(not SHARED.is_dir(), reason="the shared data folder is not there")
@pytest.mark.parametrize("method", ["tkd", "tikhonov", "tv"])
def test_the_real_crop(method: str, out: Path) -> None:
    folder = SHARED / "mgre_small"
    done = qsm_ai("reconstruct", folder / "phase.nii.gz", "--magnitude", folder / "magnitude.nii.gz", *TIMES,
                  "--b0", 7, "--method", method, "-o", out)  # fmt: skip
    assert done.exit_code == 0, done.output
    chi = nib.load(out / "phase_Chimap.nii.gz")
    assert chi.header.get_zooms() == pytest.approx((0.46875, 0.46875, 1.0))
    np.testing.assert_array_equal(chi.affine, nib.load(folder / "phase.nii.gz").affine)
    values = chi.get_fdata()
    mask = nib.load(out / "phase_mask.nii.gz").get_fdata() > 0
    assert 0.01 < values[mask].std() < 0.2
    assert json.loads((out / "phase_qsm.json").read_text())["scores"]["physics_check"]["value"] > 0.6


def test_dicom_without_dcm2niix_says_what_to_install(
    tmp_path: Path, out: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "dcm2niix", None)
    monkeypatch.setattr(shutil, "which", lambda _: None)
    done = qsm_ai("reconstruct", _folder(tmp_path / "dicom"), "-q", "-o", out)
    assert done.exit_code == 2
    assert "qsm-ai[dicom]" in done.stderr
