"""``qsm-ai submit``, ``status``, ``jobs``, ``fetch``, ``cancel``, ``retry``, ``delete`` and ``batch``."""

from __future__ import annotations

import asyncio
import json
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer
from rich.console import Console

from qsm_ai.arguments import SeveralValues, give_back
from qsm_ai.reconstruction.options import Background, Method, Reference, Unwrapping

if TYPE_CHECKING:
    from qsm_ai.client import Client, Job
    from qsm_ai.remote.batch import Ended
    from qsm_ai.remote.scans import FoundScan

app = typer.Typer()

Url = Annotated[str, typer.Option("--url", envvar="QSM_URL", metavar="URL", help="Address of the service.")]
Key = Annotated[
    str | None,
    typer.Option("--api-key", envvar="QSM_API_KEY", metavar="KEY", show_envvar=True, help="Key or token."),
]
AsJson = Annotated[bool, typer.Option("--json", help="Print what the service tells, as JSON.")]
JobIds = Annotated[list[str], typer.Argument(metavar="JOB …", show_default=False)]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="No progress on standard error.")]
EchoTimes = Annotated[
    list[float] | None,
    typer.Option("--te-ms", metavar="TE …", help="Echo times in ms; override the sidecars."),
]
FieldStrength = Annotated[
    float | None, typer.Option("--b0", metavar="T", help="Field strength in tesla; overrides the sidecars.")
]
UploadFirst = Annotated[
    bool,
    typer.Option(
        "--upload-first",
        help="Send files one by one before the job: straight to the object store, or in parts that resume.",
    ),
]
PhaseSign = Annotated[
    Literal["auto", "positive", "negative"] | None,
    typer.Option(help="Negative: the phase falls where the field rises; auto when left out."),
]
ADDRESS = "http://127.0.0.1:8080"
"""Where ``qsm-ai serve`` and Compose offer the service."""

ABOUT_ONE_JOB = (404, 409, 410, 422)
"""Answers that say something of the job that was named, and nothing of others."""

GOES_ON = "Interrupted. What the service has begun goes on: `qsm-ai jobs` shows it, `qsm-ai cancel` stops it."
WIDE = 400
"""Columns where nobody looks, so that nothing is cut to the width of a terminal that is not there."""


@contextmanager
def _service(url: str, key: str | None) -> Iterator[Client]:
    """A client whose refusals end the program with a sentence."""
    from qsm_ai.client import Client
    from qsm_ai.console import plain_errors

    with plain_errors(interrupted=GOES_ON), _refusals(), Client(url, api_key=key) as client:
        yield client


def _each(jobs: list[str], act: Callable[[str], str]) -> None:
    """Do something to every job, and say of which it could not be done: one wrong id keeps no other back."""
    from qsm_ai.client import ServiceError

    left = 0
    for one in jobs:
        try:
            typer.echo(f"{one} {act(one)}")
        except ServiceError as error:
            if len(jobs) == 1 or error.status not in ABOUT_ONE_JOB:
                raise
            left += 1
            typer.secho(f"{one}: {error}", err=True, fg=typer.colors.RED)
    if left:
        raise typer.Exit(1)


@contextmanager
def _refusals() -> Iterator[None]:
    """What the service refuses for the caller to mend ends with the status of a refusal."""
    from qsm_ai.client import ServiceError
    from qsm_ai.scan import Refusal

    try:
        yield
    except ServiceError as error:
        if error.status is not None and 400 <= error.status < 500:
            raise Refusal(error.detail, mend=error.mend, file=error.file) from None
        raise


@app.command(cls=SeveralValues)
def submit(
    phase: Annotated[
        list[Path] | None,
        typer.Argument(
            metavar="PHASE",
            help="One 4D NIfTI, one 3D NIfTI per echo, or a folder: BIDS anat, DICOM (or its zip).",
            show_default=False,
        ),
    ] = None,
    url: Url = ADDRESS,
    api_key: Key = None,
    magnitude: Annotated[
        list[Path] | None, typer.Option(metavar="FILE …", help="As the phase, or beside a field.")
    ] = None,
    mask: Annotated[Path | None, typer.Option(metavar="FILE", help="Brain mask; made when left out.")] = None,
    sidecar: Annotated[
        list[Path] | None,
        typer.Option(metavar="FILE …", help="BIDS JSON; those beside the images are found by themselves."),
    ] = None,
    te_ms: EchoTimes = None,
    b0: FieldStrength = None,
    b0_direction: Annotated[
        tuple[float, float, float] | None,
        typer.Option(metavar="X Y Z", help="Direction of B0 in voxel axes; from the header when left out."),
    ] = None,
    phase_sign: PhaseSign = None,
    total_field: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Total field in ppm instead of PHASE; needs --mask.")
    ] = None,
    local_field: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Local field in ppm instead of PHASE; needs --mask.")
    ] = None,
    method: Annotated[Method | None, typer.Option(help="From the local field to susceptibility.")] = None,
    reference: Annotated[Reference | None, typer.Option(help="What zero means.")] = None,
    unwrapping: Annotated[Unwrapping | None, typer.Option(help="Careful or fast.")] = None,
    background: Annotated[Background | None, typer.Option(help="Removal of fields from outside.")] = None,
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", file_okay=False, help="Wait, and fetch the results into this folder."),
    ] = None,
    wait: Annotated[bool, typer.Option("--wait", help="Stay until the job has ended.")] = False,
    upload_first: UploadFirst = False,
    idempotency_key: Annotated[
        str | None, typer.Option(metavar="KEY", help="Sent twice with the same key, a scan makes one job.")
    ] = None,
    as_json: AsJson = False,
    quiet: Quiet = False,
) -> None:
    """Send a scan to a service, and print the id of its job.

    Of sidecars only echo times, field strength, manufacturer and units are sent.
    """
    with _service(url, api_key) as client, ExitStack() as held:
        from qsm_ai.io.folders import open_given
        from qsm_ai.io.outputs import require_writable
        from qsm_ai.io.source import require_readable
        from qsm_ai.remote.engines import as_file, options_given
        from qsm_ai.remote.sidecars import write_reduced

        if output is not None:
            require_writable(output)
        if not phase and total_field is None and local_field is None:
            phase, magnitude = give_back(magnitude or [])
        folder = Path(held.enter_context(tempfile.TemporaryDirectory(prefix="qsm-ai-")))
        given = held.enter_context(open_given(phase or [], magnitude or [], sidecar or []))
        require_readable([*given.phase, *given.magnitude, mask, total_field, local_field])
        images = [as_file(source, folder) for source in given.phase]
        told = [as_file(source, folder) for source in given.sidecars]
        reduced = folder / "reduced"
        reduced.mkdir()
        described = images or [path for path in (total_field, local_field) if path is not None]
        job = client.submit(
            phase=images,
            magnitude=[as_file(source, folder) for source in given.magnitude],
            mask=mask,
            sidecars=write_reduced(described, None, reduced, told),
            total_field=total_field,
            local_field=local_field,
            upload_first=upload_first,
            idempotency_key=idempotency_key,
            **options_given(
                te_ms=te_ms,
                b0=b0,
                b0_direction=b0_direction,
                phase_sign=phase_sign,
                method=method,
                reference=reference,
                unwrapping=unwrapping,
                background=background,
            ),
        )
        if not (wait or output is not None):
            typer.echo(json.dumps(job.raw) if as_json else job.id)
            return
        typer.echo(job.id, err=True)
        job = _followed(client, job, quiet)
        if output is not None:
            _fetch(client, job.require_done(), None, output, inputs=(mask, total_field, local_field))
        typer.echo(json.dumps(job.raw) if as_json else _described(job))
        if job.state != "done":
            raise typer.Exit(1)


@app.command()
def status(
    job: Annotated[str, typer.Argument(metavar="JOB", show_default=False)],
    url: Url = ADDRESS,
    api_key: Key = None,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Stay until the job has ended.")] = False,
    as_json: AsJson = False,
    quiet: Quiet = False,
) -> None:
    """Show how a job stands. The exit status is 1 for a job that failed or was cancelled."""
    with _service(url, api_key) as client:
        found = client.job(job)
        if follow:
            found = _followed(client, found, quiet)
        typer.echo(json.dumps(found.raw) if as_json else _described(found))
        if found.state in ("failed", "cancelled"):
            raise typer.Exit(1)


@app.command("jobs")
def list_jobs(
    url: Url = ADDRESS,
    api_key: Key = None,
    state: Annotated[
        str | None, typer.Option(metavar="queued|running|done|failed|cancelled", help="Only those.")
    ] = None,
    limit: Annotated[int, typer.Option(min=1, help="How many, the newest first.")] = 50,
    as_json: AsJson = False,
) -> None:
    """List your jobs, newest first."""
    with _service(url, api_key) as client:
        from itertools import islice

        from qsm_ai.remote.display import job_table

        found = islice(client.jobs(state), limit)  # type: ignore[arg-type]
        if as_json:
            for one in found:
                typer.echo(json.dumps(one.raw))
        else:
            _console().print(job_table(found))


@app.command()
def fetch(
    job: Annotated[str, typer.Argument(metavar="JOB", show_default=False)],
    output: Annotated[
        Path, typer.Option("--output", "-o", file_okay=False, help="Folder for the results.")
    ] = Path(),
    artefact: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME", help="chi, …, report, picture, page; may be repeated; all if left out."),
    ] = None,
    url: Url = ADDRESS,
    api_key: Key = None,
    direct: Annotated[
        bool, typer.Option("--direct", help="From the object store, where it serves clients itself.")
    ] = False,
) -> None:
    """Download what a job made."""
    with _service(url, api_key) as client:
        from qsm_ai.io.outputs import require_writable

        require_writable(output)
        for path in _fetch(client, client.job(job).require_done(), artefact, output, direct):
            typer.echo(path)


@app.command()
def cancel(jobs: JobIds, url: Url = ADDRESS, api_key: Key = None) -> None:
    """Stop queued or running jobs."""
    with _service(url, api_key) as client:
        _each(jobs, lambda one: client.cancel(one).state)


@app.command()
def retry(jobs: JobIds, url: Url = ADDRESS, api_key: Key = None) -> None:
    """Queue failed or cancelled jobs again, with the uploads that are still there."""
    with _service(url, api_key) as client:
        _each(jobs, lambda one: client.retry(one).state)


@app.command()
def delete(jobs: JobIds, url: Url = ADDRESS, api_key: Key = None) -> None:
    """Delete jobs with their uploads and results, for good."""

    def gone(one: str) -> str:
        client.delete(one)
        return "deleted"

    with _service(url, api_key) as client:
        _each(jobs, gone)


@app.command(cls=SeveralValues)
def batch(
    dataset: Annotated[
        Path, typer.Argument(exists=True, file_okay=False, help="BIDS dataset, or a folder of scans.")
    ],
    output: Annotated[
        Path | None,
        typer.Option(
            "--output", "-o", file_okay=False, help="Gets derivatives/qsm-ai; the dataset when left out."
        ),
    ] = None,
    url: Url = ADDRESS,
    api_key: Key = None,
    local: Annotated[bool, typer.Option("--local", help="Compute here, without a service.")] = False,
    at_once: Annotated[int, typer.Option(min=1, max=64, help="Scans on their way at a time.")] = 4,
    only: Annotated[
        list[str] | None, typer.Option(metavar="NAME", help="Of the scans; may be repeated.")
    ] = None,
    list_only: Annotated[bool, typer.Option("--list", help="Show what was found, and stop.")] = False,
    te_ms: EchoTimes = None,
    b0: FieldStrength = None,
    phase_sign: PhaseSign = None,
    method: Annotated[Method | None, typer.Option(help="From the local field to susceptibility.")] = None,
    reference: Annotated[Reference | None, typer.Option(help="What zero means.")] = None,
    unwrapping: Annotated[Unwrapping | None, typer.Option(help="Careful or fast.")] = None,
    background: Annotated[Background | None, typer.Option(help="Removal of fields from outside.")] = None,
    upload_first: UploadFirst = False,
    forget: Annotated[
        bool, typer.Option("--delete", help="Delete each job on the service once its results are here.")
    ] = False,
    quiet: Quiet = False,
) -> None:
    """Reconstruct every scan of a dataset, and write derivatives/qsm-ai.

    Interrupted, it goes on where it was when it is run again: what is done stays, jobs on the service are
    taken up, and nothing is sent twice. The exit status is 1 if a scan failed.
    """
    from qsm_ai.console import CANCELLED, plain_errors

    with plain_errors(), _refusals():
        from qsm_ai.io.outputs import require_writable
        from qsm_ai.remote.display import summary
        from qsm_ai.remote.engines import options_given

        scans = _chosen(dataset, only)
        if list_only:
            for scan in scans:
                where = (scan.source or scan.phase[0].parent).relative_to(dataset)
                typer.echo(f"{scan.name}\t{len(scan.phase)} phase, {len(scan.magnitude)} magnitude\t{where}")
            return
        require_writable(output or dataset)
        options = options_given(
            te_ms=te_ms,
            b0=b0,
            phase_sign=phase_sign,
            method=method,
            reference=reference,
            unwrapping=unwrapping,
            background=background,
        )
        try:
            ended = asyncio.run(
                _batch(
                    scans,
                    dataset,
                    output or dataset,
                    options,
                    url=None if local else url,
                    key=api_key,
                    at_once=at_once,
                    upload_first=upload_first,
                    forget=forget,
                    quiet=quiet,
                )
            )
        except KeyboardInterrupt:
            typer.secho("Interrupted. Run it again to go on from here.", err=True, fg=typer.colors.RED)
            raise typer.Exit(CANCELLED) from None
    _console().print(summary(ended))
    failed = sum(one.state == "failed" for one in ended)
    typer.echo(f"{len(ended) - failed} of {len(ended)} scans done; {failed} failed.")
    if failed:
        raise typer.Exit(1)


def _chosen(dataset: Path, only: list[str] | None) -> list[FoundScan]:
    from qsm_ai.remote.scans import find_scans
    from qsm_ai.scan import Refusal

    scans = find_scans(dataset)
    if not scans:
        raise Refusal(
            "No scan was found: no image whose name says that it is a phase, no DICOM folder.",
            mend="Name phase images as BIDS does (part-phase), or with the word phase.",
        )
    known = {scan.name for scan in scans}
    if missing := [name for name in only or () if name not in known]:
        raise Refusal(f"There is no scan {missing[0]!r}.", mend="Look with --list.")
    return [scan for scan in scans if not only or scan.name in only]


async def _batch(
    scans: list[FoundScan],
    root: Path,
    output: Path,
    options: dict[str, Any],
    *,
    url: str | None,
    key: str | None,
    at_once: int,
    upload_first: bool,
    forget: bool,
    quiet: bool,
) -> list[Ended]:
    from qsm_ai.client import AsyncClient
    from qsm_ai.remote.batch import run_batch
    from qsm_ai.remote.display import BatchDisplay
    from qsm_ai.remote.engines import Here, Service

    with BatchDisplay(len(scans), quiet) as display:
        if url is None:
            network = None
            if options.get("method", "qsm-vit") == "qsm-vit":
                from qsm_ai.inference.openvino import OpenVinoNetwork

                network = OpenVinoNetwork()
            here = Here(options, root, network)
            return await run_batch(scans, here, output, options, at_once=at_once, display=display)
        async with AsyncClient(url, api_key=key) as client:
            await client.readiness()
            engine = Service(client, options, root, upload_first=upload_first, delete=forget)
            return await run_batch(scans, engine, output, options, at_once=at_once, display=display)


def _followed(client: Client, job: Job, quiet: bool) -> Job:
    """The job once it has ended, its progress shown until then."""
    from qsm_ai.console import Terminal
    from qsm_ai.reconstruction.pipeline import Progress

    with Terminal(quiet) as terminal:
        for told in client.follow(job.id):
            job = told
            if told.title and told.stage:
                detail = told.note or ""
                terminal.progress(Progress(told.stage, told.title, told.fraction, 0.0, detail))
            elif not told.has_ended:
                place = f", place {told.queue_position}" if told.queue_position else ""
                terminal.say(f"Waiting{place}")
    return job


def _fetch(
    client: Client,
    job: Job,
    names: list[str] | None,
    folder: Path,
    direct: bool = False,
    inputs: Sequence[Path | None] = (),
) -> list[Path]:
    from qsm_ai.io.outputs import in_place_of_older, require_apart
    from qsm_ai.remote.results import REPORT, files_of
    from qsm_ai.scan import Refusal

    files = files_of(job)
    if unknown := [name for name in names or () if name not in files]:
        raise Refusal(f"The job made no {unknown[0]!r}.", mend=f"Choose of: {', '.join(files)}.")
    require_apart((folder / file for file in files.values()), inputs)
    folder.mkdir(parents=True, exist_ok=True)
    # What is fetched alone takes no other's place.
    whole = nullcontext() if names else in_place_of_older(folder / files[REPORT], files.values())
    with whole:
        return [
            client.fetch(job.id, name, folder / file, direct=direct)
            for name, file in files.items()
            if not names or name in names
        ]


def _console() -> Console:
    """Shows names as they are: brackets in them are no markup."""
    console = Console(markup=False, highlight=False, emoji=False)
    if not console.is_terminal:
        console.width = WIDE
    return console


def _described(job: Job) -> str:
    from qsm_ai.remote.display import describe

    return describe(job)
