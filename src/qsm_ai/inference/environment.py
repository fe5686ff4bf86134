"""Triton's own Python environment: the tritonserver binary, numpy 1.26 and OpenVINO, from a hashed lock.

Triton's Python backend answers without data under numpy 2, so it cannot live in the project's own
environment. The wheel `nvidia-pytriton` brings the server; only its binaries are used.

Run as ``python -m qsm_ai.inference.environment``: idempotent, and safe when two processes do it at once.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import platform
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

from qsm_ai.inference.errors import RuntimeMissing

ROOT = Path(__file__).parents[3]
LOCK_FILE = ROOT / "requirements" / "triton.txt"
VARIABLE = "QSM_TRITON_ENV"
LOCK_NAME = ".lock"
PYTHONS = ((3, 11), (3, 12))
"""Versions that both the wheel's stubs and the lock serve."""

PROBE = (
    "import sys, sysconfig; get = sysconfig.get_config_var; "
    "print('%d.%d' % sys.version_info[:2], get('LIBDIR'), get('INSTSONAME') or '', sep='\\n')"
)


@dataclass(frozen=True)
class TritonEnvironment:
    """A folder with Triton in it, and how to start it.

    Attributes
    ----------
    folder : Path
    python_version : str
        Such as ``3.11``.
    python_library : Path or None
        Folder of ``libpython3.X.so.1.0``; None where the system's own loader finds it.
    """

    folder: Path
    python_version: str
    python_library: Path | None

    @property
    def site_packages(self) -> Path:
        """Where its wheels are unpacked."""
        return self.folder / "lib" / f"python{self.python_version}" / "site-packages"

    @property
    def tritonserver(self) -> Path:
        """The server binary."""
        return self.site_packages / "pytriton" / "tritonserver" / "bin" / "tritonserver"

    @property
    def backends(self) -> Path:
        """Folder for ``--backend-directory``."""
        return self.site_packages / "pytriton" / "tritonserver" / "backends"

    def variables(self) -> dict[str, str]:
        """The environment variables under which tritonserver and its Python stub find what they need."""
        libraries = [str(self.site_packages / "nvidia_pytriton.libs")]
        if self.python_library:
            libraries.insert(0, str(self.python_library))
        inherited = {k: v for k, v in os.environ.items() if k not in {"PYTHONPATH", "PYTHONHOME"}}
        path = [str(self.folder / "bin"), inherited.get("PATH", os.defpath)]
        return inherited | {
            "LD_LIBRARY_PATH": os.pathsep.join(libraries),
            "PATH": os.pathsep.join(path),
            "VIRTUAL_ENV": str(self.folder),
        }


def folder() -> Path:
    """Where the environment lies: ``QSM_TRITON_ENV``, or ``.triton`` in the project."""
    return Path(os.environ.get(VARIABLE) or ROOT / ".triton").absolute()


def ensure(say: Callable[[str], None] = lambda _: None, *, lock_file: Path = LOCK_FILE) -> TritonEnvironment:
    """The environment, made now if it is not there or the lock has changed.

    Parameters
    ----------
    say : callable
        Told what is being done, when something is.
    lock_file : Path
        Requirements with hashes.

    Returns
    -------
    TritonEnvironment

    Raises
    ------
    RuntimeMissing
        On a machine for which there is no Triton wheel, without a Python that has its shared library, or when
        pip cannot install the lock.
    """
    if not lock_file.is_file():
        raise RuntimeMissing(
            "The lock file of Triton's environment is not there.",
            mend="Run from a checkout of the project, or point --triton at a running server.",
        )
    where = folder()
    digest = hashlib.sha256(lock_file.read_bytes()).hexdigest()
    if (ready := _read_stamp(where, digest)) is not None:
        return ready
    with _only_one(where):
        if (ready := _read_stamp(where, digest)) is None:
            ready = _make(where, lock_file, digest, say)
    return ready


@contextmanager
def _only_one(where: Path) -> Iterator[None]:
    """Let one process at a time make an environment; the lock goes with the process that held it."""
    where.mkdir(parents=True, exist_ok=True)
    with (where / LOCK_NAME).open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _clear(where: Path) -> None:
    """Remove what an older or broken attempt left; the lock that we hold stays."""
    for entry in where.iterdir():
        if entry.is_dir() and not entry.is_symlink():
            shutil.rmtree(entry)
        elif entry.name != LOCK_NAME:
            entry.unlink()


def _stamp(where: Path) -> Path:
    return where / "made-from"


def _read_stamp(where: Path, digest: str) -> TritonEnvironment | None:
    try:
        stamped, version, library = _stamp(where).read_text().splitlines()
    except (OSError, ValueError):
        return None
    made = TritonEnvironment(where, version, Path(library) if library != "-" else None)
    return made if stamped == digest and made.tritonserver.is_file() else None


def _make(where: Path, lock_file: Path, digest: str, say: Callable[[str], None]) -> TritonEnvironment:
    if sys.platform != "linux" or platform.machine() not in {"x86_64", "aarch64"}:
        raise RuntimeMissing(
            "Triton runs on Linux only.",
            mend="Use the containers, point --triton at a running server, or reconstruct in process.",
        )
    python, version, library = _find_python()
    say(f"Installing Triton into {where.name} (about 250 MB to fetch, once)")
    _clear(where)
    made = TritonEnvironment(where, version, library)
    inside = str(where / "bin" / "python")
    if find_spec("pip"):  # ours serves both, and the environment is made in a moment without its own
        venv, pip = ["--without-pip"], [sys.executable, "-m", "pip", "--python", inside]
    else:
        venv, pip = [], [inside, "-m", "pip"]
    _run([python, "-m", "venv", *venv, str(where)], "Triton's environment could not be made.")
    _run(
        [
            *pip, "--quiet", "--disable-pip-version-check", "--no-input", "install",
            "--no-deps", "--only-binary=:all:", "--require-hashes", "-r", str(lock_file),
        ],
        "Triton could not be installed.",
    )  # fmt: skip
    stubs = made.backends.parent / "python_backend_stubs"
    shutil.copy2(stubs / version / "triton_python_backend_stub", made.backends / "python")
    _stamp(where).write_text(f"{digest}\n{version}\n{library or '-'}\n")
    return made


def _run(command: list[str], sentence: str) -> None:
    variables = {k: v for k, v in os.environ.items() if k not in {"PYTHONPATH", "PYTHONHOME", "VIRTUAL_ENV"}}
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=variables)
    if done.returncode != 0:
        why = "\n".join((done.stderr or done.stdout).strip().splitlines()[-5:])
        raise RuntimeMissing(sentence, mend=f"It said:\n{why}")


def _find_python() -> tuple[str, str, Path | None]:
    """A Python whose shared library Triton's stub can load: command, version, folder of the library."""
    own = getattr(sys, "_base_executable", None) or sys.executable
    names = [own, *(f"python{major}.{minor}" for major, minor in PYTHONS), "python3"]
    for candidate in dict.fromkeys(filter(None, map(shutil.which, names))):
        probe = subprocess.run([candidate, "-c", PROBE], capture_output=True, text=True, check=False)
        if probe.returncode != 0:
            continue
        version, library, name = probe.stdout.split("\n")[:3]
        if tuple(map(int, version.split("."))) not in PYTHONS or ".so" not in name:
            continue
        if (Path(library) / name).exists():
            return candidate, version, Path(library)
        # Debian keeps it in a multiarch folder that the loader knows anyway.
        if _loader_knows(name):
            return candidate, version, None
    raise RuntimeMissing(
        "Triton needs a Python 3.11 or 3.12 with its shared library (libpython3.11.so.1.0); none was found.",
        mend="On Debian or Ubuntu: apt-get install libpython3.11; with pyenv: build it with --enable-shared.",
    )


def _loader_knows(name: str) -> bool:
    load = f"import ctypes; ctypes.CDLL({name!r})"
    return subprocess.run([sys.executable, "-c", load], capture_output=True, check=False).returncode == 0


def main() -> None:
    """Make the environment, and say where it is."""
    made = ensure(print)
    print(f"Triton is ready in {made.folder}")


if __name__ == "__main__":
    try:
        main()
    except RuntimeMissing as missing:
        sys.exit(str(missing))
    except KeyboardInterrupt:
        sys.exit("Interrupted; what was begun is made anew the next time.")
