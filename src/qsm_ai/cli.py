"""The command line: ``qsm-ai reconstruct``, ``qsm-ai sample``, ``qsm-ai serve``."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from qsm_ai import __version__
from qsm_ai.arguments import SeveralValues, give_back
from qsm_ai.optional_commands import PARTS, mount
from qsm_ai.reconstruction.options import Background, Method, Options, Reference, Unwrapping

if TYPE_CHECKING:
    from qsm_ai.reconstruction.network import Network

TRITON_ANSWERS_WITHIN = 10.0
"""Seconds."""

app = typer.Typer(
    name="qsm-ai",
    help="Quantitative susceptibility maps from the phase of multi-echo gradient-echo MRI.\n\n"
    "Research use only; not a medical device.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"qsm-ai {__version__}")
        raise typer.Exit


@app.callback()
def main(
    version: Annotated[
        bool, typer.Option("--version", help="Print the version.", callback=_version, is_eager=True)
    ] = False,
) -> None:
    """Where options of all commands would stand."""


@app.command(cls=SeveralValues)
def reconstruct(
    phase: Annotated[
        list[Path] | None,
        typer.Argument(
            metavar="PHASE",
            help="One 4D NIfTI, one 3D NIfTI per echo, or a folder: BIDS anat, DICOM (or its zip).",
            show_default=False,
        ),
    ] = None,
    output: Annotated[
        Path,
        typer.Option("--output", "-o", metavar="DIR", help="Folder for the results.", show_default=False),
    ] = ...,  # type: ignore[assignment]
    magnitude: Annotated[
        list[Path] | None,
        typer.Option(
            metavar="FILE …", help="Magnitude, as the phase or beside a field; several after one flag."
        ),
    ] = None,
    mask: Annotated[Path | None, typer.Option(metavar="FILE", help="Brain mask; made when left out.")] = None,
    sidecar: Annotated[
        list[Path] | None,
        typer.Option(metavar="FILE …", help="BIDS JSON; those beside the images are found by themselves."),
    ] = None,
    te_ms: Annotated[
        list[float] | None,
        typer.Option(metavar="TE …", help="Echo times in ms, e.g. 4 12 20 28; override the sidecars."),
    ] = None,
    b0: Annotated[
        float | None, typer.Option(metavar="T", help="Field strength in tesla; overrides the sidecars.")
    ] = None,
    b0_direction: Annotated[
        tuple[float, float, float] | None,
        typer.Option(metavar="X Y Z", help="Direction of B0 in voxel axes; from the header when left out."),
    ] = None,
    phase_sign: Annotated[
        str,
        typer.Option(
            metavar="auto|positive|negative",
            help="Negative: the phase falls where the field rises. Auto takes GE for such a scanner.",
        ),
    ] = "auto",
    total_field: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Start from a total field in ppm instead of PHASE; needs --mask."),
    ] = None,
    local_field: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Start from a local field in ppm instead of PHASE; needs --mask."),
    ] = None,
    method: Annotated[Method, typer.Option(help="From the local field to susceptibility.")] = Options.method,
    reference: Annotated[
        Reference, typer.Option(help="What zero means: mean of the mask, fluid, or nothing.")
    ] = Options.reference,
    unwrapping: Annotated[Unwrapping, typer.Option(help="Careful or fast.")] = Options.unwrapping,
    background: Annotated[
        Background, typer.Option(help="Removal of fields from outside the mask.")
    ] = Options.background,
    triton: Annotated[
        str | None,
        typer.Option(
            metavar="HOST:PORT", help="Run the network on this Triton (gRPC) instead of in process."
        ),
    ] = None,
    precision: Annotated[
        Literal["auto", "f32", "bf16"],
        typer.Option(help="Of the network in process; auto is bf16 where the CPU has it."),
    ] = "auto",
    name: Annotated[
        str | None,
        typer.Option(metavar="NAME", help="Stem of the results; from the phase's name when left out."),
    ] = None,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="No progress on standard error.")] = False,
) -> None:
    """Reconstruct a susceptibility map (χ, ppm) from the phase of a gradient-echo scan.

    Writes <name>_Chimap.nii.gz into the output folder and, beside it, the mask, the total and local field,
    R2*, the residual of the physics check, a picture of three planes (PNG) and a report (_qsm.json). Results
    of an earlier run under the same name are replaced.

    Example: qsm-ai reconstruct phase.nii.gz --magnitude mag.nii.gz --te-ms 4 12 20 28 --b0 3 --output maps
    """
    from qsm_ai.console import Terminal, plain_errors

    with plain_errors(), Terminal(quiet) as terminal, ExitStack() as held:
        from qsm_ai.io.folders import open_given
        from qsm_ai.io.loading import load_scan
        from qsm_ai.io.outputs import require_writable, write_outputs
        from qsm_ai.io.source import require_readable
        from qsm_ai.reconstruction.pipeline import reconstruct as run
        from qsm_ai.scan import Refusal

        options = Options(method, reference, unwrapping, background)
        if phase_sign not in {"auto", "positive", "negative"}:
            raise Refusal(
                "The sign of the phase is auto, positive or negative.", mend="Choose one with --phase-sign."
            )
        require_writable(output)
        started = time.perf_counter()
        terminal.say("Reading")
        if not phase and total_field is None and local_field is None:
            phase, magnitude = give_back(magnitude or [])
        given = held.enter_context(open_given(phase or [], magnitude or [], sidecar or []))
        require_readable([*given.phase, *given.magnitude, mask, total_field, local_field])
        scan = load_scan(
            given.phase,
            given.magnitude,
            mask,
            given.sidecars,
            te_ms=te_ms or None,
            b0=b0,
            b0_direction=b0_direction,
            total_field=total_field,
            local_field=local_field,
            phase_sign=phase_sign,  # type: ignore[arg-type]
            name=name or given.name,
        )
        require_writable(output, scan.name, (mask, total_field, local_field))
        timings = {"reading": time.perf_counter() - started}
        network = None
        if options.method == "qsm-vit":
            started = time.perf_counter()
            terminal.say("Loading the network")
            network = held.enter_context(_network(triton, precision))
            timings["loading_network"] = time.perf_counter() - started
        result = run(scan, options, network, terminal.progress)
        terminal.say("Writing")
        written = write_outputs(scan, result, output, timings)
    for warning in result.warnings:
        typer.secho(f"Note: {warning}", err=True, fg=typer.colors.YELLOW)
    typer.echo(f"Map      {written['chi']}")
    typer.echo(f"Picture  {written['picture']}")
    typer.echo(f"Report   {written['report']}")
    typer.echo(f"Page     {written['page']}")
    typer.echo(f"The map explains {100 * result.scores['physics_check']:.1f} % of the local field's energy.")


@contextmanager
def _network(triton: str | None, precision: Literal["auto", "f32", "bf16"]) -> Iterator[Network]:
    """The network on a running Triton, or in this process."""
    if triton is not None:
        import asyncio

        from qsm_ai.inference.triton import TritonNetwork

        with TritonNetwork(triton) as network:
            # Before minutes of work are put into a scan that nobody would finish.
            asyncio.run(network.check(TRITON_ANSWERS_WITHIN))
            yield network
    else:
        from qsm_ai.inference.openvino import OpenVinoNetwork
        from qsm_ai.inference.repository import model_file

        yield OpenVinoNetwork(model_file(), precision)


@app.command()
def sample(
    folder: Annotated[Path, typer.Argument(help="Folder for the scan.", show_default=False)],
) -> None:
    """Simulate the sample scan: phase, magnitude and sidecars as BIDS, with the true map beside them."""
    from qsm_ai.console import plain_errors

    with plain_errors():
        from qsm_ai.io.outputs import require_writable
        from qsm_ai.sample import simulate_sample, write_sample
        from qsm_ai.scan import OutputRefusal

        try:
            require_writable(folder)
        except OutputRefusal as refusal:  # this command has no --output
            raise OutputRefusal(refusal.sentence, mend="Give a folder of your own.") from None
        written = write_sample(simulate_sample(), folder)
    typer.echo(f"Phase    {written.phase[0].parent}")
    typer.echo(f"Truth    {written.chi}")


for part in PARTS:
    mount(app, part)
