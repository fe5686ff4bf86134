"""Triton's own environment: made once, by one process, from the lock, and again when the lock changes."""

import base64
import hashlib
import os
import signal
import subprocess
import sys
import zipfile
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path

import pytest

from qsm_ai.inference.environment import LOCK_FILE, ensure, folder
from qsm_ai.inference.errors import RuntimeMissing

PYTHON = f"{sys.version_info[0]}.{sys.version_info[1]}"


def write_wheel(directory: Path, release: str) -> str:
    """A wheel with the layout of nvidia-pytriton but no Triton in it; returns its hash."""
    name = f"nvidia_pytriton-{release}"
    files = {
        "pytriton/tritonserver/bin/tritonserver": release,
        "pytriton/tritonserver/backends/python/libtriton_python.so": "",
        f"pytriton/tritonserver/python_backend_stubs/{PYTHON}/triton_python_backend_stub": "stub",
        f"{name}.dist-info/METADATA": f"Metadata-Version: 2.1\nName: nvidia-pytriton\nVersion: {release}\n",
        f"{name}.dist-info/WHEEL": "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
    }
    rows = []
    path = directory / f"{name}-py3-none-any.whl"
    with zipfile.ZipFile(path, "w") as wheel:
        for file, text in files.items():
            digest = base64.urlsafe_b64encode(hashlib.sha256(text.encode()).digest()).rstrip(b"=").decode()
            rows.append(f"{file},sha256={digest},{len(text)}")
            wheel.writestr(file, text)
        wheel.writestr(f"{name}.dist-info/RECORD", "\n".join([*rows, f"{name}.dist-info/RECORD,,", ""]))
    return hashlib.sha256(path.read_bytes()).hexdigest()


@pytest.fixture
def lock(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], Path]:
    """Writes a lock of one wheel, which pip finds without any network."""
    monkeypatch.setenv("QSM_TRITON_ENV", str(tmp_path / "env"))
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(tmp_path))

    def write(release: str) -> Path:
        digest = write_wheel(tmp_path, release)
        path = tmp_path / "lock.txt"
        path.write_text(f"nvidia-pytriton=={release} --hash=sha256:{digest}\n")
        return path

    return write


def test_it_is_made_once_and_again_when_the_lock_changes(lock: Callable[[str], Path]) -> None:
    told: list[str] = []
    first = lock("0.7.0")
    made = ensure(told.append, lock_file=first)
    assert made.tritonserver.read_text() == "0.7.0"
    assert (made.backends / "python" / "triton_python_backend_stub").read_text() == "stub"
    assert len(told) == 1

    assert ensure(told.append, lock_file=first) == made
    assert len(told) == 1

    again = ensure(told.append, lock_file=lock("0.8.0"))
    assert again.tritonserver.read_text() == "0.8.0"
    assert len(told) == 2


def test_two_processes_that_want_it_at_once_make_it_once(lock: Callable[[str], Path], tmp_path: Path) -> None:
    path = lock("0.7.0")
    (tmp_path / "env").mkdir()
    (tmp_path / "env" / "half-made").touch()
    program = (
        "from pathlib import Path; from qsm_ai.inference.environment import ensure\n"
        f"print(ensure(print, lock_file=Path({str(path)!r})).tritonserver.read_text())"
    )
    both = [
        subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True) for _ in range(2)
    ]
    said = [process.communicate(timeout=120)[0] for process in both]
    assert [process.returncode for process in both] == [0, 0]
    assert all(text.splitlines()[-1] == "0.7.0" for text in said)
    assert sum("Installing" in text for text in said) == 1
    assert not (tmp_path / "env" / "half-made").exists()


def test_a_wheel_that_is_not_the_locked_one_is_refused(lock: Callable[[str], Path]) -> None:
    path = lock("0.7.0")
    path.write_text("nvidia-pytriton==0.7.0 --hash=sha256:" + "0" * 64 + "\n")
    for _ in range(2):
        with pytest.raises(RuntimeMissing, match=r"(?s)could not be installed.*(?i:hash)"):
            ensure(lock_file=path)


def test_without_a_lock_it_says_what_else_can_be_done(tmp_path: Path) -> None:
    with pytest.raises(RuntimeMissing, match="point --triton at a running server"):
        ensure(lock_file=tmp_path / "none.txt")


class TestTheRealOne:
    def test_lies_where_the_variable_says(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.delenv("QSM_TRITON_ENV", raising=False)
        assert folder() == LOCK_FILE.parents[1] / ".triton"
        monkeypatch.setenv("QSM_TRITON_ENV", "/elsewhere")
        assert folder() == Path("/elsewhere")

    def test_holds_what_the_lock_says(self) -> None:
        made = ensure()
        program = "import numpy, openvino; print(numpy.__version__, openvino.__version__.split('-')[0])"
        said = subprocess.run(
            [made.folder / "bin/python", "-c", program], capture_output=True, text=True, check=True
        ).stdout.split()
        assert said[0] == "1.26.4"
        assert said[1].startswith(version("openvino"))

    def test_its_variables_shut_out_the_callers_packages(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("PYTHONPATH", "/somewhere")
        made = ensure()
        variables = made.variables()
        assert "PYTHONPATH" not in variables
        assert variables["PATH"].startswith(str(made.folder / "bin"))
        assert str(made.site_packages / "nvidia_pytriton.libs") in variables["LD_LIBRARY_PATH"].split(":")


def test_ctrl_c_while_it_is_made_is_one_sentence(tmp_path: Path) -> None:
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        pytest.skip(
            "these tests run in the background of a script, deaf to Ctrl-C, and so would what they start"
        )
    code = (
        "import runpy, subprocess;"
        # In the place of pip, which takes minutes.
        "subprocess.run = lambda *_, **__: __import__('signal').raise_signal(2);"
        "runpy.run_module('qsm_ai.inference.environment', run_name='__main__')"
    )
    ended = subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, "QSM_TRITON_ENV": str(tmp_path / "triton")},
        capture_output=True,
        text=True,
        check=False,
    )
    assert ended.returncode == 1
    assert "Interrupted" in ended.stderr
    assert "Traceback" not in ended.stderr
