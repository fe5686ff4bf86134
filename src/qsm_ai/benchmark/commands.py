"""``qsm-ai benchmark accuracy`` and ``qsm-ai benchmark speed``."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Annotated

import typer

from qsm_ai.reconstruction.options import METHODS, Method
from qsm_ai.scan import Refusal

app = typer.Typer()
benchmark = typer.Typer(help="How accurate and how fast, measured here.", no_args_is_help=True)
app.add_typer(benchmark, name="benchmark")

RESULTS = Path("benchmarks/results")

Markdown = Annotated[bool, typer.Option("--markdown", help="Print the table for docs/benchmarks.md.")]


@benchmark.command()
def accuracy(
    case: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME", help="Of the phantoms; may be repeated; all if left out."),
    ] = None,
    method: Annotated[
        list[str] | None,
        typer.Option(metavar="|".join(METHODS), help="May be repeated; all methods if left out."),
    ] = None,
    output: Annotated[Path, typer.Option("--output", "-o", dir_okay=False, help="JSON to write.")] = RESULTS
    / "accuracy.json",
    markdown: Markdown = False,
) -> None:
    """Score every method on phantoms whose truth is known, from phase and from the true local field.

    The phantoms are recorded by qsm-forward and scored as QSM-CI scores. NRMSE in per cent, XSIM up to one;
    each in the brain less six voxels of rim / in the whole brain.
    """
    from qsm_ai.console import plain_errors

    with plain_errors():
        from qsm_ai.benchmark.accuracy import Score, measure
        from qsm_ai.benchmark.phantoms import CASES
        from qsm_ai.benchmark.record import network_record, write_record
        from qsm_ai.benchmark.tables import GrowingTable
        from qsm_ai.inference.openvino import OpenVinoNetwork
        from qsm_ai.inference.repository import model_file
        from qsm_ai.io.outputs import require_writable

        phantoms = {phantom.name: phantom for phantom in CASES}
        methods = _choose("method", method, METHODS)
        cases = [phantoms[name] for name in _choose("case", case, phantoms)]
        require_writable(output.parent)
        network = OpenVinoNetwork() if "qsm-vit" in methods else None
        columns = ("Phantom", "From", "Method", "NRMSE / %", "XSIM", "Coverage / %", "Time / s")
        with GrowingTable("Interior / whole brain", columns, words=3, markdown=markdown) as table:

            def show(score: Score) -> None:
                table.add(
                    score.case,
                    score.start,
                    score.method,
                    f"{score.nrmse:.1f} / {score.nrmse_brain:.1f}",
                    f"{score.xsim:.3f} / {score.xsim_brain:.3f}",
                    f"{100 * score.coverage:.1f}",
                    f"{score.seconds:.1f}",
                )

            scores = measure(cases, network, methods, show)
        write_record(
            output,
            ["qsm-ai", "benchmark", "accuracy", *_words("--case", case), *_words("--method", method)],
            network_record(network.name, model_file()) if network else None,
            scores=[score.as_dict() for score in scores],
        )
    typer.echo(f"Written to {output}", err=True)


@benchmark.command()
def speed(
    shape: Annotated[int, typer.Option(min=24, max=512, help="Voxels along each axis, about.")] = 160,
    repeat: Annotated[int, typer.Option(min=1, help="Runs; the fastest of each stage counts.")] = 2,
    method: Annotated[Method, typer.Option(help="From the local field to susceptibility.")] = "qsm-vit",
    output: Annotated[Path, typer.Option("--output", "-o", dir_okay=False, help="JSON to write.")] = RESULTS
    / "speed.json",
    markdown: Markdown = False,
) -> None:
    """Time every stage on a simulated head with four echoes, with the time it would take at best beside it.

    The floor counts a stage's Fourier transforms, each as long as it takes here, and the network's operations
    at the rate that convolutions of its widths reach here. Stages that have neither have no floor.
    """
    from qsm_ai.console import plain_errors

    with plain_errors():
        from qsm_ai.benchmark.record import network_record, write_record
        from qsm_ai.benchmark.speed import time_reconstruction
        from qsm_ai.benchmark.tables import GrowingTable
        from qsm_ai.inference.repository import model_file
        from qsm_ai.io.outputs import require_writable

        require_writable(output.parent)
        typer.echo("Simulating and reconstructing …", err=True)
        timing = time_reconstruction(shape, method, repeat)
        columns = ("Stage", "Time / s", "Transforms", "Network / GFLOP", "Floor / s", "Time / floor")
        with GrowingTable(f"{method}, {shape}³, 4 echoes", columns, markdown=markdown) as table:
            for stage in timing.stages:
                table.add(
                    stage.stage,
                    f"{stage.seconds:.2f}",
                    str(stage.transforms or "–"),
                    f"{stage.operations / 1e9:.0f}" if stage.operations else "–",
                    "–" if stage.floor is None else f"{stage.floor:.2f}",
                    "–" if stage.ratio is None else f"{stage.ratio:.1f}",
                )
            table.add(
                "whole run",
                f"{timing.seconds:.2f}",
                str(sum(stage.transforms for stage in timing.stages)),
                f"{sum(stage.operations for stage in timing.stages) / 1e9:.0f}",
                f"{timing.floor:.2f}",
                f"{timing.seconds / timing.floor:.1f}",
            )
        rate = (
            ""
            if timing.convolution_rate is None
            else f", convolutions {timing.convolution_rate / 1e9:.0f} GFLOP/s"
        )
        typer.echo(f"\nPeak memory {timing.peak_memory / 2**30:.2f} GiB{rate}")
        write_record(
            output,
            [
                *("qsm-ai", "benchmark", "speed", "--shape", str(shape)),
                *("--repeat", str(repeat), "--method", method),
            ],
            network_record(timing.network, model_file()) if timing.network else None,
            timing=timing.as_dict(),
        )
    typer.echo(f"Written to {output}", err=True)


def _choose(option: str, wanted: list[str] | None, known: Iterable[str]) -> tuple[str, ...]:
    """What was asked for, or all there is."""
    choices = tuple(known)
    if unknown := [name for name in wanted or () if name not in choices]:
        raise Refusal(
            f"There is no {option} {unknown[0]!r}.", mend=f"Choose with --{option}: {', '.join(choices)}."
        )
    return tuple(wanted or choices)


def _words(option: str, values: list[str] | None) -> list[str]:
    return [word for value in values or () for word in (option, value)]
