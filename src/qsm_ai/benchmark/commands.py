"""The commands of ``qsm-ai benchmark``."""

from __future__ import annotations

import json
import statistics
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from qsm_ai.reconstruction.options import METHODS, Method, Options
from qsm_ai.scan import Refusal

if TYPE_CHECKING:
    from qsm_ai.benchmark.cases import Case
    from qsm_ai.benchmark.scoring import Quality

app = typer.Typer()
benchmark = typer.Typer(help="How accurate and how fast, measured here.", no_args_is_help=True)
app.add_typer(benchmark, name="benchmark")

RESULTS = Path("benchmarks/results")

QUICK_METHODS, QUICK_STARTS = ("qsm-vit", "tkd", "tv"), ("phase", "local field")
"""Of the quick set, unless others are asked for."""

Markdown = Annotated[bool, typer.Option("--markdown", help="Print the table for docs/benchmarks.md.")]


@benchmark.command()
def accuracy(
    case: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME", help="Of the phantoms; may be repeated; all if left out."),
    ] = None,
    axis: Annotated[
        list[str] | None,
        typer.Option(metavar="AXIS", help="Phantoms of a sweep: SNR, tilt, voxel, field, lesion, heads …"),
    ] = None,
    quick: Annotated[
        bool,
        typer.Option(
            "--quick", help="Every axis in a few minutes: coarser phantoms, three methods, two starts."
        ),
    ] = False,
    start: Annotated[
        list[str] | None,
        typer.Option(metavar="START", help="phase, total field, local field; all if left out."),
    ] = None,
    method: Annotated[
        list[str] | None,
        typer.Option(metavar="|".join(METHODS), help="May be repeated; all methods if left out."),
    ] = None,
    labels: Annotated[
        Path | None,
        typer.Option(
            exists=True, dir_okay=False, help="FreeSurfer labels of a head at 1 mm, for two of the heads."
        ),
    ] = None,
    fresh: Annotated[
        bool, typer.Option("--fresh", help="Measure again what the output holds already.")
    ] = False,
    output: Annotated[Path, typer.Option("--output", "-o", dir_okay=False, help="JSON to write.")] = RESULTS
    / "accuracy.json",
    docs: Annotated[
        Path | None,
        typer.Option(
            file_okay=False, help="Folder with benchmarks.md: its tables and pictures are made anew."
        ),
    ] = None,
    markdown: Markdown = False,
) -> None:
    """Score every method on phantoms whose truth is known: from phase, total field and true local field.

    The phantoms are recorded by qsm-forward and scored as QSM-CI scores. NRMSE in per cent, XSIM up to one;
    each in the brain less six voxels of rim / in the whole brain. What was measured before, with the same
    weights and code, is not measured again: an interrupted run goes on with the same command.
    """
    from qsm_ai.console import plain_errors

    with plain_errors():
        from qsm_ai.benchmark.accuracy import STARTS, Score, measure, read_scores
        from qsm_ai.benchmark.cases import CASES
        from qsm_ai.benchmark.labels import find_labels
        from qsm_ai.benchmark.record import network_record, write_record
        from qsm_ai.benchmark.tables import GrowingTable
        from qsm_ai.inference.openvino import OpenVinoNetwork
        from qsm_ai.inference.repository import model_file
        from qsm_ai.io.outputs import require_writable

        phantoms = {phantom.name: phantom for phantom in CASES}
        methods = _choose("method", method or (list(QUICK_METHODS) if quick else None), METHODS)
        starts = _choose("start", start or (list(QUICK_STARTS) if quick else None), STARTS)
        axes = _choose("axis", axis, dict.fromkeys(phantom.axis for phantom in CASES))
        cases = [phantoms[name] for name in _choose("case", case, phantoms)]
        if not case:
            cases = [c for c in cases if c.quick == quick and c.axis in axes]
        anatomy = find_labels(labels)
        if anatomy is None and any(c.anatomy == "labelled" for c in cases):
            typer.echo("Heads with real anatomy are left out: give their labels with --labels.", err=True)
            cases = [c for c in cases if c.anatomy != "labelled"]
        require_writable(output.parent)
        network = OpenVinoNetwork() if "qsm-vit" in methods else None
        used = network_record(network.name, model_file()) if network else None
        weights = used["sha256"] if used else ""
        # Results of other phantoms stay, as long as they are of these weights and this code.
        old = [] if fresh else read_scores(output)
        current = _current_keys(CASES, STARTS, weights or _weights_of(output))
        scores = {score.key: score for score in old if score.key in current}
        words = [
            *("qsm-ai", "benchmark", "accuracy", *_words("--case", case), *_words("--axis", axis)),
            *(["--quick"] if quick else []),
            *(*_words("--start", start), *_words("--method", method)),
        ]
        used = used or _network_of(output)

        def keep() -> None:
            rows = [scores[key].as_dict() for key in current if key in scores]
            write_record(output, words, used, scores=rows)

        columns = ("Phantom", "From", "Method", "NRMSE / %", "XSIM", "Coverage / %", "Time / s")
        with GrowingTable("Interior / whole brain", columns, words=3, markdown=markdown) as table:

            def show(score: Score) -> None:
                scores[score.key] = score
                keep()
                table.add(
                    score.case,
                    score.start,
                    score.method,
                    *_both(score.quality),
                    f"{100 * score.quality.coverage:.1f}",
                    f"{score.seconds:.1f}",
                )

            measure(
                cases,
                network,
                methods,
                starts,
                weights=weights,
                labels=anatomy,
                done=scores.values(),
                slices=output.with_name(f"{output.stem}-slices"),
                tell=show,
            )
        keep()
        if docs is not None:
            from qsm_ai.benchmark.report import write_report

            write_report(output, docs)
    typer.echo(f"Written to {output}", err=True)


@benchmark.command()
def calibrate(
    heads: Annotated[
        int, typer.Option(min=6, help="Heads, of which every third is kept from the fit to judge it.")
    ] = 24,
    labels: Annotated[
        Path | None,
        typer.Option(
            exists=True, dir_okay=False, help="FreeSurfer labels of a head at 1 mm, for half of them."
        ),
    ] = None,
    folder: Annotated[
        Path, typer.Option(file_okay=False, help="Keeps what was measured of each head, by weights and code.")
    ] = Path("runs/calibration"),
    calibration: Annotated[
        Path | None,
        typer.Option(dir_okay=False, help="JSON to write for the pipeline; the installed one if left out."),
    ] = None,
    output: Annotated[Path, typer.Option("--output", "-o", dir_okay=False, help="JSON to write.")] = RESULTS
    / "calibration.json",
    docs: Annotated[
        Path | None,
        typer.Option(file_okay=False, help="Folder with model_card.md: its reliability is made anew."),
    ] = None,
) -> None:
    """Calibrate the standard deviation of the map and the warning of unfamiliar scans, for these weights.

    Heads of their own seeds, neither trained nor tested on, are reconstructed from phase and from a local
    field. To be run whenever the weights or the pipeline change; an interrupted run goes on with the same
    command.
    """
    from qsm_ai.console import plain_errors

    with plain_errors():
        import qsm_ai.reconstruction
        from qsm_ai.benchmark.calibration import FIRST_CALIBRATION_SEED, collect
        from qsm_ai.benchmark.calibration import calibrate as fit
        from qsm_ai.benchmark.code import code_digest
        from qsm_ai.benchmark.labels import find_labels
        from qsm_ai.benchmark.record import network_record, write_record
        from qsm_ai.benchmark.reliability import write_reliability
        from qsm_ai.inference.openvino import OpenVinoNetwork
        from qsm_ai.inference.repository import model_file
        from qsm_ai.io.outputs import require_writable
        from qsm_ai.reconstruction.calibration import FILE

        require_writable(output.parent)
        network = OpenVinoNetwork()
        used = network_record(network.name, model_file())
        seeds = range(FIRST_CALIBRATION_SEED, FIRST_CALIBRATION_SEED + heads)
        samples = collect(
            folder / f"{used['sha256'][:12]}-{code_digest(without=())}",
            seeds,
            network,
            find_labels(labels),
            tell=lambda seed: typer.echo(f"head {seed - seeds.start + 1} of {heads}", err=True),
        )
        found, record = fit(samples)
        target = calibration or Path(qsm_ai.reconstruction.__path__[0]) / FILE
        target.write_text(json.dumps({"sha256": used["sha256"], **found}, indent=2) + "\n", encoding="utf-8")
        write_record(output, ["qsm-ai", "benchmark", "calibrate", "--heads", str(heads)], used, **record)
        for kind, judged in record.items():
            told = judged["held_out"]
            within = [f"{100 * told[name]:.1f} %" for name in ("within_one", "within_two")]
            typer.echo(
                f"{kind:8} {within[0]} within one, {within[1]} within two standard deviations; "
                f"{100 * judged['false_alarms']:.0f} % of heads unfamiliar"
            )
        if docs is not None:
            write_reliability(output, docs)
    typer.echo(f"Written to {target} and {output}", err=True)


@benchmark.command()
def speed(
    shape: Annotated[int, typer.Option(min=24, max=512, help="Voxels along each axis, about.")] = 160,
    repeat: Annotated[int, typer.Option(min=1, help="Runs; the fastest of each stage counts.")] = 2,
    method: Annotated[Method, typer.Option(help="From the local field to susceptibility.")] = Options.method,
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


@benchmark.command()
def service(
    users: Annotated[int, typer.Option(min=1, max=5000, help="At once.")] = 200,
    seconds: Annotated[
        float, typer.Option(min=0, help="After so long nobody begins with another scan.")
    ] = 60.0,
    at_most: Annotated[
        float, typer.Option(min=1, help="After so many seconds everybody goes, whatever became of their job.")
    ] = 300.0,
    poll: Annotated[float, typer.Option(min=0.05, help="Seconds between two looks at a job.")] = 1.0,
    shape: Annotated[int, typer.Option(min=24, max=256, help="Voxels along each axis.")] = 32,
    method: Annotated[Method, typer.Option(help="qsm-vit starts Triton too.")] = Options.method,
    workers: Annotated[int, typer.Option(min=1, help="Jobs computed at once by each backend.")] = 1,
    backends: Annotated[int, typer.Option(min=1, max=16, help="Processes that answer.")] = 1,
    output: Annotated[Path, typer.Option("--output", "-o", dir_okay=False, help="JSON to write.")] = RESULTS
    / "service.json",
    markdown: Markdown = False,
) -> None:
    """Let users send, look, fetch and delete all at once, on a service of its own with access by key.

    A request counts as failed unless it succeeds, or is refused with 429 or 503 and a time to come again.
    Latencies include what the users' own event loop was late, which is told beside them. Several backends
    share one database, and each request goes to the next of them.
    """
    from qsm_ai.console import plain_errors

    with plain_errors():
        from qsm_ai.benchmark.record import network_record, write_record
        from qsm_ai.benchmark.service import Setting, rows, time_service
        from qsm_ai.benchmark.tables import GrowingTable
        from qsm_ai.inference.repository import model_file
        from qsm_ai.io.outputs import require_writable

        require_writable(output.parent)
        setting = Setting(users, seconds, at_most, poll, shape, method, workers, backends)
        timing = time_service(setting, lambda doing: typer.echo(f"{doing} …", err=True))
        title = f"{users} users, {method}, {shape}³"
        with GrowingTable(title, ("Measured", "Value"), markdown=markdown) as table:
            for name, value in rows(timing):
                table.add(name, value)
        write_record(
            output,
            [
                *("qsm-ai", "benchmark", "service", "--users", str(users), "--seconds", f"{seconds:g}"),
                *("--at-most", f"{at_most:g}", "--poll", f"{poll:g}", "--shape", str(shape)),
                *("--method", method, "--workers", str(workers), "--backends", str(backends)),
            ],
            network_record("qsm_vit", model_file()) if method == "qsm-vit" else None,
            timing=timing.as_dict(),
        )
    typer.echo(f"Written to {output}", err=True)


@benchmark.command()
def observing(
    shape: Annotated[int, typer.Option(min=24, max=512, help="Voxels along each axis, about.")] = 96,
    repeat: Annotated[int, typer.Option(min=1, help="Pairs of runs.")] = 5,
    method: Annotated[Method, typer.Option(help="From the local field to susceptibility.")] = Options.method,
    output: Annotated[Path, typer.Option("--output", "-o", dir_okay=False, help="JSON to write.")] = RESULTS
    / "observing.json",
    markdown: Markdown = False,
) -> None:
    """Measure what logs, metrics and traces cost a job, in processor time; more than 2 % is an error.

    Once by themselves, over a job's time; and once as the difference between jobs with and without them, turn
    by turn, which other work on the machine blurs.
    """
    from qsm_ai.console import plain_errors

    with plain_errors():
        from qsm_ai.benchmark.observing import BUDGET, measure
        from qsm_ai.benchmark.record import network_record, write_record
        from qsm_ai.benchmark.tables import GrowingTable
        from qsm_ai.inference.repository import model_file
        from qsm_ai.io.outputs import require_writable

        require_writable(output.parent)
        typer.echo("Reconstructing, observed and not …", err=True)
        found = measure(shape, method, repeat)
        with GrowingTable(f"{method}, {shape}³", ("Measured", "Value"), markdown=markdown) as table:
            table.add("job, processor time", f"{statistics.median(found.plain):.2f} s")
            table.add("the same, observed", f"{statistics.median(found.observed):.2f} s")
            table.add("difference, median of pairs", f"{100 * found.difference:+.2f} %")
            table.add("spans of a job", str(found.spans))
            table.add("observing by itself", f"{1000 * found.own:.1f} ms")
            table.add("its share of a job", f"{100 * found.share:.2f} %")
        write_record(
            output,
            [
                "qsm-ai",
                "benchmark",
                "observing",
                "--shape",
                str(shape),
                "--repeat",
                str(repeat),
                "--method",
                method,
            ],
            network_record("qsm_vit", model_file()) if method == "qsm-vit" else None,
            overhead=found.as_dict(),
        )
    typer.echo(f"Written to {output}", err=True)
    if found.share > BUDGET:
        raise typer.Exit(1)


@benchmark.command()
def limit(
    heads: Annotated[int, typer.Option(min=1, help="Heads, each of its own seed.")] = 2,
    voxel: Annotated[float, typer.Option(min=0.5, max=8, help="Edge of the voxels, mm.")] = 2.0,
    snr: Annotated[float, typer.Option(min=1, help="Of white matter at echo time zero.")] = 100.0,
    output: Annotated[Path, typer.Option("--output", "-o", dir_okay=False, help="JSON to write.")] = RESULTS
    / "limit.json",
    markdown: Markdown = False,
) -> None:
    """Compare the pipeline with the best guess of one who knows the anatomy: what any method must leave.

    Heads in bone and air whose borders of tissue, nuclei and statistics are known beforehand, as no method
    knows them; the best guess has the same field as the network, from phase and from the local field.
    """
    from qsm_ai.console import plain_errors

    with plain_errors():
        from qsm_ai.benchmark.limit import Found, measure
        from qsm_ai.benchmark.record import network_record, write_record
        from qsm_ai.benchmark.tables import GrowingTable
        from qsm_ai.inference.openvino import OpenVinoNetwork
        from qsm_ai.inference.repository import model_file
        from qsm_ai.io.outputs import require_writable

        require_writable(output.parent)
        network = OpenVinoNetwork()
        found: list[Found] = []
        columns = ("Head", "From", "By", "NRMSE / %", "XSIM")
        title = f"{voxel:g} mm, SNR {snr:g}: interior / whole brain"
        with GrowingTable(title, columns, words=3, markdown=markdown) as table:

            def show(one: Found) -> None:
                table.add(str(one.seed), one.start, one.way, *_both(one.quality))

            for seed in range(heads):
                found += measure(seed, (voxel, voxel, voxel), network, snr, tell=show)
        write_record(
            output,
            [
                *("qsm-ai", "benchmark", "limit", "--heads", str(heads)),
                *("--voxel", f"{voxel:g}", "--snr", f"{snr:g}"),
            ],
            network_record(network.name, model_file()),
            found=[one.as_dict() for one in found],
        )
    typer.echo(f"Written to {output}", err=True)


def _both(quality: Quality) -> tuple[str, str]:
    """NRMSE and XSIM, of the interior and of the whole brain."""
    inner, whole = quality.interior, quality.brain
    return (
        f"{inner['nrmse']:.1f} / {whole['nrmse']:.1f}",
        f"{inner['xsim']:.3f} / {whole['xsim']:.3f}",
    )


def _choose(option: str, wanted: list[str] | None, known: Iterable[str]) -> tuple[str, ...]:
    """What was asked for, or all there is."""
    choices = tuple(known)
    if unknown := [name for name in wanted or () if name not in choices]:
        raise Refusal(
            f"There is no {option} {unknown[0]!r}.", mend=f"Choose with --{option}: {', '.join(choices)}."
        )
    return tuple(wanted or choices)


def _current_keys(cases: Iterable[Case], starts: Iterable[str], weights: str) -> dict[str, None]:
    """Keys of every score that there could be, in the order of the tables."""
    from qsm_ai.benchmark.accuracy import key_of

    return dict.fromkeys(key_of(c, s, m, weights) for c in cases for s in tuple(starts) for m in METHODS)


def _network_of(output: Path) -> dict[str, str] | None:
    """The network of an earlier run's record, if there is one."""
    try:
        found = json.loads(output.read_text())["network"]
    except (OSError, ValueError, KeyError):
        return None
    return dict(found) if found else None


def _weights_of(output: Path) -> str:
    return (_network_of(output) or {}).get("sha256", "")


def _words(option: str, values: list[str] | None) -> list[str]:
    return [word for value in values or () for word in (option, value)]
