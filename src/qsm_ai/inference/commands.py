"""``qsm-ai triton``: set up Triton's environment, or run Triton alone."""

from __future__ import annotations

import signal
import sys
import threading
from typing import Annotated, Any

import typer

from qsm_ai.inference.errors import InferenceFailure
from qsm_ai.inference.ports import HIGHEST_PORT

app = typer.Typer()
triton = typer.Typer(help="The inference server.", no_args_is_help=True)
app.add_typer(triton, name="triton")


def port_option(envvar: str, said: str | None = None) -> Any:
    """An option that takes a TCP port and nothing else.

    Parameters
    ----------
    envvar : str
        Where it may stand, too.
    said : str or None
        In the help.

    Returns
    -------
    Option
        For ``Annotated``.
    """
    return typer.Option(help=said, envvar=envvar, min=1, max=HIGHEST_PORT)


@triton.command()
def install() -> None:
    """Set up Triton's own environment (.triton, or QSM_TRITON_ENV); quick when it is there."""
    from qsm_ai.inference.environment import ensure

    try:
        made = ensure(typer.echo)
    except InferenceFailure as failure:
        sys.exit(str(failure))
    typer.echo(f"Triton is ready in {made.folder}")


@triton.command()
def run(
    http_port: Annotated[int, port_option("QSM_TRITON_HTTP_PORT")] = 8000,
    grpc_port: Annotated[int, port_option("QSM_TRITON_GRPC_PORT")] = 8001,
    metrics_port: Annotated[int, port_option("QSM_TRITON_METRICS_PORT")] = 8002,
    precision: Annotated[
        str | None, typer.Option(help="auto, f32 or bf16.", envvar="QSM_PRECISION", show_default=False)
    ] = None,
) -> None:
    """Run Triton alone on the model repository until Ctrl-C."""
    from qsm_ai.inference.server import Ports, TritonServer

    stopping = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: stopping.set())
    try:
        with TritonServer(ports=Ports(http_port, grpc_port, metrics_port), precision=precision) as server:
            typer.echo(f"Triton listens on {server.grpc_url} (gRPC); Ctrl-C stops it.")
            while server.exit_status is None and not stopping.wait(0.5):
                pass
            if server.exit_status is not None:
                sys.exit(f"Triton ended by itself (exit status {server.exit_status}).")
    except InferenceFailure as failure:
        sys.exit(str(failure))
