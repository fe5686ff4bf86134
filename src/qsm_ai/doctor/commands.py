"""``qsm-ai doctor``."""

from __future__ import annotations

import json
import os
import sys
from typing import Annotated

import typer

app = typer.Typer()

MARKS = {"ok": "ok", "warning": "WARN", "wrong": "WRONG", "skipped": "-"}


@app.command()
def doctor(
    url: Annotated[
        str,
        typer.Argument(metavar="URL", help="Address of the service.", envvar=["QSM_URL", "QSM_API_URL"]),
    ] = "http://127.0.0.1:8080",
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON for programs.")] = False,
    scan: Annotated[bool, typer.Option(help="Send a reference scan and compare its map.")] = True,
    patience: Annotated[
        float, typer.Option(metavar="S", min=0, help="Seconds that the scan may take.")
    ] = 300.0,
    timeout: Annotated[float, typer.Option(metavar="S", min=0.1, help="Seconds for one answer.")] = 30.0,
    triton_metrics: Annotated[
        str | None,
        typer.Option(metavar="URL", help="Triton's metrics (…:8002/metrics), to look at the GPU."),
    ] = None,
    alertmanager: Annotated[
        str | None, typer.Option(metavar="URL", help="Alertmanager (…:9093), to send a test alert.")
    ] = None,
) -> None:
    """Check a running service from outside, and say what is wrong and the mend.

    Signs in with QSM_API_KEY where it is set. The output holds no address, key or file name: paste it into an
    issue as it is. Exit status 0: nothing is wrong; 1: something is; 2: no such address or key can be.

    Example: qsm-ai doctor https://qsm.example.org
    """
    from qsm_ai import __version__
    from qsm_ai.console import plain_errors
    from qsm_ai.doctor.deployment import Deployment
    from qsm_ai.doctor.examination import examine
    from qsm_ai.doctor.findings import Discretion, secrets_of

    key = os.environ.get("QSM_API_KEY", "").strip()
    discretion = Discretion(secrets_of(url, key))
    quiet = as_json or not sys.stderr.isatty()

    def show(doing: str) -> None:
        if not quiet:
            typer.secho(f"{doing} …", err=True, dim=True)

    found = []
    with plain_errors(), Deployment(url, key=key, timeout=timeout) as deployment:
        looking = examine(
            deployment,
            with_scan=scan,
            patience=patience,
            triton_metrics=triton_metrics,
            alertmanager=alertmanager,
            show=show,
        )
        for finding in map(discretion.finding, looking):
            found.append(finding)
            if not as_json:
                typer.echo(f"{MARKS[finding.verdict]:<6}{finding.name:<13}{finding.said}")
                if finding.mend:
                    typer.echo(f"{'':<19}{finding.mend}")
    healthy = all(finding.verdict != "wrong" for finding in found)
    if as_json:
        report = {"doctor": __version__, "healthy": healthy, "findings": [f.as_json() for f in found]}
        typer.echo(json.dumps(report, indent=2))
    else:
        wrongs = sum(finding.verdict == "wrong" for finding in found)
        typer.echo(
            "Nothing is wrong." if healthy else f"{wrongs} of {len(found)} checks found something wrong."
        )
    raise typer.Exit(0 if healthy else 1)
