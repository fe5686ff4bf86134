"""Commands of optional parts: there where the part is installed, and told by name where it is not."""

from __future__ import annotations

import os
import traceback
from dataclasses import dataclass
from importlib import import_module
from importlib.util import find_spec

import typer


@dataclass(frozen=True)
class Optional:
    """A part of the command line that not everybody installs.

    Attributes
    ----------
    module : str
        Has a Typer application ``app``; it imports its heavy libraries inside its commands, so that
        ``--help`` stays quick.
    needs : str
        A package without which it cannot work.
    extra : str
        What to install: ``qsm-ai[<extra>]``.
    commands : name: what it does
        As they are shown where the part is not installed.
    """

    module: str
    needs: str
    extra: str
    commands: dict[str, str]


PARTS = (
    Optional(
        "qsm_ai.remote.commands",
        "httpx",
        "client",
        {
            "submit": "Send a scan to a service.",
            "status": "Show how a job stands.",
            "jobs": "List the jobs on a service.",
            "fetch": "Download what a job made.",
            "cancel": "Stop jobs.",
            "retry": "Queue failed or cancelled jobs again.",
            "delete": "Delete jobs with their uploads and results.",
            "batch": "Reconstruct a BIDS dataset or a folder of scans.",
        },
    ),
    Optional(
        "qsm_ai.doctor.commands", "httpx", "client", {"doctor": "Check a running service from outside."}
    ),
    Optional(
        "qsm_ai.network.commands",
        "torch",
        "train",
        {
            "train": "Train the network.",
            "export": "Write trained weights as ONNX.",
            "ablate": "Train small networks that differ in one thing each.",
        },
    ),
    Optional("qsm_ai.benchmark.commands", "qsm_ci", "bench", {"benchmark": "How accurate and how fast."}),
    Optional("qsm_ai.serve", "tritonclient", "api", {"serve": "Start Triton, backend and frontend."}),
    Optional("qsm_ai.inference.commands", "tritonclient", "api", {"triton": "Triton's environment."}),
    Optional(
        "qsm_ai.api.worker_commands",
        "alembic",
        "api",
        {"worker": "Compute jobs of a database.", "migrate": "Bring a database up to date."},
    ),
    Optional("qsm_ai.api.keys_commands", "sqlalchemy", "api", {"keys": "API keys: create, list, revoke."}),
)


def mount(app: typer.Typer, part: Optional) -> None:
    """Add a part's commands; where it cannot be imported, commands that say what to install.

    A part that is broken never takes the rest of the command line with it.
    """
    try:
        if find_spec(part.needs) is None:
            raise ModuleNotFoundError(part.needs)
        loaded: typer.Typer = import_module(part.module).app
    except Exception as error:  # whatever a broken package does when it is imported
        if os.environ.get("QSM_DEBUG"):
            traceback.print_exc()
        for name, purpose in part.commands.items():
            _stand_in(app, name, purpose, part.extra, error)
    else:
        app.add_typer(loaded)


def _stand_in(app: typer.Typer, name: str, purpose: str, extra: str, error: Exception) -> None:
    needed = f"pip install 'qsm-ai[{extra}]'"
    state = "is not installed" if isinstance(error, ModuleNotFoundError) else "cannot be loaded"

    @app.command(
        name,
        help=f"{purpose} (Needs: {needed})",
        context_settings={"allow_extra_args": True, "ignore_unknown_options": True},
        add_help_option=False,
    )
    def missing(_context: typer.Context) -> None:
        typer.secho(
            f"'qsm-ai {name}' {state} ({type(error).__name__}). Install what it needs: {needed}",
            err=True,
            fg=typer.colors.RED,
        )
        raise typer.Exit(1)
