"""``qsm-ai train``, ``qsm-ai export`` and ``qsm-ai ablate``."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from multiprocessing.process import BaseProcess

    from qsm_ai.network.door import Solvers
    from qsm_ai.network.qsm_vit import QsmVit

app = typer.Typer()

VALIDATION_SEED = 900_000
VALIDATION_EXAMPLES = 10
ENOUGH_TO_BEGIN = 8

INTERRUPTED = 130

ONNX = ".onnx"


@app.command()
def train(
    directory: Annotated[
        Path, typer.Option(file_okay=False, help="Checkpoint, curve and examples live here.")
    ] = Path("runs/default"),
    steps: Annotated[int, typer.Option(min=1, help="Steps in all, those already done counted.")] = 4000,
    decay: Annotated[
        int, typer.Option(min=0, help="Over how many of the last steps the learning rate falls.")
    ] = 1500,
    batch: Annotated[int, typer.Option(min=1, help="Crops a step.")] = 2,
    crop: Annotated[int, typer.Option(help="Edge of a crop, voxels; a multiple of 8.")] = 64,
    large_crop: Annotated[
        int,
        typer.Option(
            help="Edge of the crops that one step in five takes instead, as many as fit into the batch."
        ),
    ] = 96,
    rate: Annotated[float, typer.Option(help="Learning rate of the plateau.")] = 1e-3,
    examples: Annotated[int, typer.Option(min=1, help="Invented scans to learn from.")] = 400,
    pool: Annotated[
        Path | None,
        typer.Option(file_okay=False, help="Folder of examples; DIRECTORY/pool when left out."),
    ] = None,
    labels: Annotated[
        Path | None,
        typer.Option(
            exists=True,
            dir_okay=False,
            help="FreeSurfer labels of a head at 1 mm: its anatomy joins the invented ones.",
        ),
    ] = None,
    start: Annotated[
        Path | None, typer.Option(help="Checkpoint whose averaged weights a new training begins with.")
    ] = None,
    unroll: Annotated[
        Path | None,
        typer.Option(
            exists=True,
            dir_okay=False,
            help="ONNX file or, for a GPU, checkpoint of an earlier training: its maps go before the later "
            "passes of each example.",
        ),
    ] = None,
    makers: Annotated[int, typer.Option(min=1, help="Processes that make examples meanwhile.")] = 1,
    threads: Annotated[int, typer.Option(min=0, help="CPU threads of the training; 0 for all.")] = 0,
    seed: Annotated[int, typer.Option(min=0, help="Of everything random.")] = 0,
    minutes: Annotated[
        float | None,
        typer.Option(
            min=0.01,
            help="End after so long, the first examples counted, whatever the steps; the learning rate falls "
            "over the last DECAY / STEPS of it.",
        ),
    ] = None,
    keep: Annotated[
        Path | None,
        typer.Option(dir_okay=False, help="Also write the averaged weights alone, at the end: a small file."),
    ] = None,
) -> None:
    """Train QSM-ViT on invented scans, or go on where a checkpoint lies."""
    import torch
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

    from qsm_ai.network.export import keep_checkpoint
    from qsm_ai.network.training import Plan, Pool, Trainer

    began = time.monotonic()
    try:
        plan = Plan(
            steps=steps, decay=decay, batch=batch, crop=crop, large_crop=large_crop, rate=rate, seed=seed
        )
    except ValueError as error:
        raise typer.BadParameter(str(error), param_hint="--crop, --large-crop") from None
    begin = _weights(start, "--start") if start else None
    if unroll and unroll.suffix != ONNX:
        _weights(unroll, "--unroll")
    folder = pool or directory / "pool"
    console = Console(stderr=True)
    workers = _start_makers(folder, examples, labels, unroll, makers)
    try:
        with console.status("Making the first examples"):
            _wait_for_examples(folder / "train", min(ENOUGH_TO_BEGIN, examples), workers)
            _wait_for_examples(folder / "validation", 1, workers)
        if threads:
            torch.set_num_threads(threads)
        device, _ = _device()
        trainer = Trainer(plan, directory, device, begin)
        columns = (TextColumn("{task.description}"), BarColumn(), TimeRemainingColumn())
        with Progress(*columns, console=console, disable=not console.is_terminal) as bar:
            seconds = None if minutes is None else max(60 * minutes - (time.monotonic() - began), 1.0)
            task = bar.add_task("training", total=seconds or steps, completed=0 if seconds else trainer.step)
            learnt_from, judged_by = (Pool(folder / name, device) for name in ("train", "validation"))
            for row in trainer.run(learnt_from, judged_by, seconds=seconds):
                said = f"step {row['step']:.0f}  loss {row['loss']:.4f}  validation {row['nrmse']:.1f} %"
                bar.update(task, completed=row["seconds" if seconds else "step"], description=said)
                if not console.is_terminal:
                    typer.echo(said)
    except KeyboardInterrupt:
        typer.echo("Stopped. The same command goes on from the last checkpoint.", err=True)
        raise typer.Exit(INTERRUPTED) from None
    finally:
        for worker in workers:
            worker.terminate()
            worker.join()
    typer.echo(f"{trainer.step} steps done: {directory / 'checkpoint.pt'}")
    if keep:
        keep_checkpoint(directory / "checkpoint.pt", keep)
        typer.echo(f"{keep}: {keep.stat().st_size / 1e6:.1f} MB")


@app.command()
def export(
    checkpoint: Annotated[
        Path,
        typer.Argument(exists=True, dir_okay=False, help="checkpoint.pt of a training.", show_default=False),
    ],
    onnx: Annotated[Path, typer.Argument(dir_okay=False, help="The ONNX file to write.")] = Path(
        "model_repository/qsm_vit/1/model.onnx"
    ),
    keep: Annotated[
        Path | None,
        typer.Option(
            dir_okay=False, help="Also write the weights alone, for a later training to start from."
        ),
    ] = None,
) -> None:
    """Export a checkpoint's averaged weights to ONNX, unless what is computed from it differs."""
    from qsm_ai.inference.repository import name_weights
    from qsm_ai.network.export import export_onnx, keep_checkpoint, parity, too_far

    model = _weights(checkpoint)
    candidate = onnx.with_name(f".{onnx.stem}.candidate.onnx")
    try:
        export_onnx(model, candidate)
        differences = parity(model, candidate)
        for backend, difference in differences.items():
            typer.echo(f"{backend:24} {difference:.1e} of the correction")
        if strays := too_far(differences):
            typer.echo(
                f"{' and '.join(strays)} compute something else; {onnx.name} stays as it was.", err=True
            )
            raise typer.Exit(1)
        candidate.replace(onnx)
    finally:
        candidate.unlink(missing_ok=True)
    typer.echo(f"{onnx}: {onnx.stat().st_size / 1e6:.1f} MB")
    for configuration in name_weights(onnx):
        typer.echo(f"{configuration} names these weights")
    if keep:
        keep_checkpoint(checkpoint, keep)
        typer.echo(f"{keep}: {keep.stat().st_size / 1e6:.1f} MB")


@app.command()
def ablate(
    steps: Annotated[int, typer.Option(min=20, help="Of each training.")] = 1000,
    edge: Annotated[
        int, typer.Option(help="Of the cube that holds a whole head, voxels; a multiple of 8.")
    ] = 40,
    heads: Annotated[int, typer.Option(min=1, help="Invented scans to learn from.")] = 300,
    judges: Annotated[int, typer.Option(min=1, help="Other ones to be judged by.")] = 40,
    pool: Annotated[Path, typer.Option(file_okay=False, help="Folder of the heads.")] = Path("runs/ablation"),
    labels: Annotated[
        Path | None,
        typer.Option(exists=True, dir_okay=False, help="FreeSurfer labels of a head at 1 mm."),
    ] = None,
    only: Annotated[
        list[str] | None,
        typer.Option(help="Train these alone, named as in the table; may be given several times."),
    ] = None,
    threads: Annotated[int, typer.Option(min=0, help="CPU threads of the training; 0 for all.")] = 0,
) -> None:
    """Train small networks that differ in one thing each, and print what that thing is worth."""
    import torch

    from qsm_ai.network.ablation import VARIANTS, table, uncorrected
    from qsm_ai.network.ablation import ablate as train_all
    from qsm_ai.network.examples import load_labels
    from qsm_ai.network.training import Plan
    from qsm_ai.network.whole_heads import WholeHeads, write_whole_heads

    try:
        Plan(crop=edge)
    except ValueError as error:
        raise typer.BadParameter(str(error), param_hint="--edge") from None
    if unknown := set(only or []) - {variant.name for variant in VARIANTS}:
        raise typer.BadParameter(
            f"There is no variant {min(unknown)!r}, but {', '.join(repr(v.name) for v in VARIANTS)}.",
            param_hint="--only",
        )
    chosen = tuple(variant for variant in VARIANTS if not only or variant.name in only)
    if threads:
        torch.set_num_threads(threads)
    anatomy = load_labels(labels) if labels else None
    device, run_by = _device()

    def made(name: str, seeds: range) -> WholeHeads:
        typer.echo(f"Making the heads of {name}", err=True)
        write_whole_heads(pool / f"{name}-{edge}", seeds, anatomy, edge, run_by)
        return WholeHeads(pool / f"{name}-{edge}", device)

    learnt_from = made("train", range(heads))
    judged_by = made("validation", range(VALIDATION_SEED, VALIDATION_SEED + judges))
    outcomes = []
    for outcome in train_all(learnt_from, judged_by, steps, edge, chosen, device):
        typer.echo(f"{outcome.name}: {outcome.nrmse:.1f} %, held {outcome.nrmse_held:.1f} %", err=True)
        outcomes.append(outcome)
    typer.echo(table([*outcomes, uncorrected(judged_by, edge, device)]))


def _start_makers(
    pool: Path, examples: int, labels: Path | None, unroll: Path | None, makers: int
) -> list[BaseProcess]:
    """Processes that fill the pool, each with its own share of the seeds."""
    from multiprocessing import get_context

    spawn = get_context("spawn")
    validation = range(VALIDATION_SEED, VALIDATION_SEED + VALIDATION_EXAMPLES)
    tasks = [("validation", validation)] + [("train", range(k, examples, makers)) for k in range(makers)]
    processes = [
        spawn.Process(target=make_examples, args=(pool / name, seeds, labels, unroll), daemon=True)
        for name, seeds in tasks
    ]
    for process in processes:
        process.start()
    return list(processes)


def _weights(checkpoint: Path, option: str | None = None) -> QsmVit:
    """The network of a checkpoint, if it can be given what examples have."""
    from qsm_ai.network.export import load_checkpoint
    from qsm_ai.reconstruction.inputs import CHANNELS

    try:
        model = load_checkpoint(checkpoint)
    except Exception:
        raise typer.BadParameter(
            f"{checkpoint.name} is no checkpoint of QSM-ViT.", param_hint=option
        ) from None
    if (channels := model.architecture["channels"]) != len(CHANNELS):
        raise typer.BadParameter(
            f"The network in {checkpoint.name} has {channels} inputs; examples have {len(CHANNELS)}.",
            param_hint=option,
        )
    return model


def make_examples(directory: Path, seeds: range, labels: Path | None, unroll: Path | None) -> None:
    """Fill a folder with examples: all that a process of its own does.

    Parameters
    ----------
    directory : Path
    seeds : of the scans
    labels : Path or None
        FreeSurfer labels of a head.
    unroll : Path or None
        A network, ONNX or checkpoint, whose map joins the inputs.
    """
    import torch

    from qsm_ai.network.accelerated import TorchNetwork
    from qsm_ai.network.examples import load_labels, write_pool
    from qsm_ai.network.export import load_checkpoint
    from qsm_ai.reconstruction.network import Network

    torch.set_num_threads(1)
    device, run_by = _device()
    network: Network | None = None
    if unroll and unroll.suffix == ONNX:
        from qsm_ai.inference.openvino import OpenVinoNetwork

        network = OpenVinoNetwork(unroll, threads=1)
    elif unroll:
        network = TorchNetwork(load_checkpoint(unroll), device)
    write_pool(directory, seeds, load_labels(labels) if labels else None, network, solvers=run_by)


def _device() -> tuple[str, Solvers]:
    """Where to compute, and who makes the examples there."""
    import torch

    from qsm_ai.network.accelerated import solvers
    from qsm_ai.network.door import NUMPY

    return ("cuda", solvers("cuda")) if torch.cuda.is_available() else ("cpu", NUMPY)


def _wait_for_examples(directory: Path, count: int, makers: list[BaseProcess]) -> None:
    """Until there are ``count`` files, or at least one and nobody left who makes more."""
    while True:
        working = any(maker.is_alive() for maker in makers)
        found = len(list(directory.glob("*.npy")))
        if found >= count or (found and not working):
            return
        if not working:
            raise typer.BadParameter(
                f"No examples could be made in {directory}: is there space on the disk?", param_hint="--pool"
            )
        time.sleep(0.2)
