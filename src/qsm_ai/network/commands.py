"""``qsm-ai train`` and ``qsm-ai export``."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from multiprocessing.process import BaseProcess

app = typer.Typer()

VALIDATION_SEED = 900_000
VALIDATION_EXAMPLES = 10
ENOUGH_TO_BEGIN = 8


@app.command()
def train(
    directory: Annotated[Path, typer.Option(help="Checkpoint, curve and examples live here.")] = Path(
        "runs/default"
    ),
    steps: Annotated[int, typer.Option(help="Steps in all, those already done counted.")] = 4000,
    decay: Annotated[
        int, typer.Option(help="Over how many of the last steps the learning rate falls.")
    ] = 1500,
    batch: Annotated[int, typer.Option(help="Crops a step.")] = 2,
    rate: Annotated[float, typer.Option(help="Learning rate of the plateau.")] = 1e-3,
    examples: Annotated[int, typer.Option(help="Invented scans to learn from.")] = 400,
    pool: Annotated[
        Path | None, typer.Option(help="Folder of examples; DIRECTORY/pool when left out.")
    ] = None,
    labels: Annotated[
        Path | None,
        typer.Option(help="FreeSurfer labels of a head at 1 mm: its anatomy joins the invented ones."),
    ] = None,
    makers: Annotated[int, typer.Option(help="Processes that make examples meanwhile.")] = 1,
    threads: Annotated[int, typer.Option(help="CPU threads of the training itself; 0 for all.")] = 0,
    seed: Annotated[int, typer.Option()] = 0,
) -> None:
    """Train QSM-ViT, or go on training where a checkpoint lies."""
    import torch
    from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

    from qsm_ai.network.training import Plan, Pool, Trainer

    folder = pool or directory / "pool"
    workers = _start_makers(folder, examples, labels, makers)
    try:
        _wait_for_examples(folder / "train", min(ENOUGH_TO_BEGIN, examples), workers)
        _wait_for_examples(folder / "validation", 1, workers)
        if threads:
            torch.set_num_threads(threads)
        plan = Plan(steps=steps, decay=decay, batch=batch, rate=rate, seed=seed)
        device = "cuda" if torch.cuda.is_available() else "cpu"
        trainer = Trainer(plan, directory, device)
        columns = (TextColumn("{task.description}"), BarColumn(), TimeRemainingColumn())
        with Progress(*columns) as bar:
            task = bar.add_task("training", total=steps, completed=trainer.step)
            for row in trainer.run(Pool(folder / "train"), Pool(folder / "validation")):
                said = f"step {row['step']:.0f}  loss {row['loss']:.4f}  validation {row['nrmse']:.1f} %"
                bar.update(task, completed=row["step"], description=said)
    finally:
        for worker in workers:
            worker.terminate()


@app.command()
def export(
    checkpoint: Annotated[Path, typer.Argument(help="checkpoint.pt of a training.", show_default=False)],
    onnx: Annotated[Path, typer.Argument(help="The ONNX file to write.")] = Path(
        "model_repository/qsm_vit/1/model.onnx"
    ),
) -> None:
    """Export the averaged weights of a checkpoint to ONNX, and compare what both compute."""
    from qsm_ai.network.export import export_onnx, load_checkpoint, parity

    model = load_checkpoint(checkpoint)
    export_onnx(model, onnx)
    typer.echo(f"{onnx}: {onnx.stat().st_size / 1e6:.1f} MB")
    for backend, difference in parity(model, onnx).items():
        typer.echo(f"{backend:24} {difference:.2e} of the correction")


def _start_makers(pool: Path, examples: int, labels: Path | None, makers: int) -> list[BaseProcess]:
    """Processes that fill the pool, each with its own share of the seeds."""
    from multiprocessing import get_context

    spawn = get_context("spawn")
    validation = range(VALIDATION_SEED, VALIDATION_SEED + VALIDATION_EXAMPLES)
    tasks = [("validation", validation)] + [("train", range(k, examples, makers)) for k in range(makers)]
    processes = [
        spawn.Process(target=_make, args=(pool / name, seeds, labels), daemon=True) for name, seeds in tasks
    ]
    for process in processes:
        process.start()
    return list(processes)


def _make(directory: Path, seeds: range, labels: Path | None) -> None:
    from qsm_ai.network.examples import load_labels, write_pool

    write_pool(directory, seeds, load_labels(labels) if labels else None)


def _wait_for_examples(directory: Path, count: int, makers: list[BaseProcess]) -> None:
    while len(list(directory.glob("*.npy"))) < count:
        if all(not maker.is_alive() for maker in makers):
            raise typer.BadParameter(f"No examples could be made in {directory}: is there space on the disk?")
        time.sleep(0.5)
