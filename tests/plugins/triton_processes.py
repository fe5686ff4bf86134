"""The processes of a Triton, found from outside by the port that they name on their command lines."""

from __future__ import annotations

from pathlib import Path

PROC = Path("/proc")


def processes_of(grpc_port: int) -> set[int]:
    """Ids of the server, its leash and its stubs."""
    marks = (f"--grpc-port={grpc_port}".encode(), f"qsm_ai_{grpc_port}_".encode())
    found = set()
    for entry in PROC.iterdir():
        if entry.name.isdigit():
            try:
                line = (entry / "cmdline").read_bytes()
            except OSError:
                continue
            if any(mark in line for mark in marks):
                found.add(int(entry.name))
    return found


def tritonserver_of(grpc_port: int) -> int:
    """Id of the server itself."""
    (found,) = (p for p in processes_of(grpc_port) if _name(p) == "tritonserver")
    return found


def stub_of(grpc_port: int) -> int:
    """Id of the process that runs its one Python model."""
    # As long as Linux keeps names.
    (found,) = (p for p in processes_of(grpc_port) if _name(p) == "triton_python_b")
    return found


def _name(process: int) -> str:
    try:
        return (PROC / str(process) / "comm").read_text().strip()
    except OSError:
        return ""
