"""``qsm-ai worker`` and ``qsm-ai migrate``."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from qsm_ai.api.command_settings import refuse, settings_or_refuse

app = typer.Typer()


@app.command()
def worker(
    slots: Annotated[
        int | None,
        typer.Option(min=1, help="Jobs at once; QSM_WORKERS when left out.", show_default=False),
    ] = None,
    port: Annotated[
        int | None,
        typer.Option(
            min=0, max=65535, help="Of health and metrics, 0 opens none; QSM_WORKER_PORT when left out.",
            show_default=False,
        ),
    ] = None,
    grace: Annotated[
        float | None,
        typer.Option(
            min=0, metavar="SECONDS", show_default=False,
            help="How long jobs may go on once it is told to end; QSM_WORKER_GRACE_S when left out.",
        ),
    ] = None,
) -> None:  # fmt: skip
    """Compute the jobs of the database and storage that the settings (QSM_…) name.

    Start as many as you like, on any machines: each job is done once. On SIGTERM it takes no more jobs, lets
    those that run end, and hands back what has not ended in time.
    """
    import asyncio

    given: dict[str, Any] = {"workers": slots, "worker_port": port, "worker_grace_s": grace}
    settings = settings_or_refuse(**{name: value for name, value in given.items() if value is not None})
    if settings.workers < 1:
        refuse("A worker needs at least one slot: set QSM_WORKERS or --slots.")
    from qsm_ai import __version__
    from qsm_ai.api.worker import WorkerProcess
    from qsm_ai.jobs.errors import DatabaseMismatchError
    from qsm_ai.observe import logs, tracing

    logs.configure("worker", settings.log_level)
    tracing.configure("qsm-ai-worker", __version__)
    try:
        process = WorkerProcess(settings)
    except DatabaseMismatchError as error:
        refuse(str(error))
    asyncio.run(process.run())


@app.command()
def migrate(
    to: Annotated[
        str | None,
        typer.Option(metavar="REVISION", help="An older one to go back to; the newest when left out."),
    ] = None,
) -> None:
    """Bring the database that the settings name to the schema of this version.

    Run it once before a new version starts where backends must not do it themselves (QSM_MIGRATE=false).
    """
    settings = settings_or_refuse()
    from sqlalchemy.exc import SQLAlchemyError

    from qsm_ai.jobs import schema
    from qsm_ai.jobs.database import Database
    from qsm_ai.jobs.errors import DatabaseMismatchError

    target = to or schema.HEAD
    if target not in schema.revisions():
        refuse(f"There is no revision {target}; those known are {', '.join(schema.revisions())}.")
    database = Database(settings.database)
    try:
        before = schema.move(database, target)
    except DatabaseMismatchError as error:
        refuse(str(error))
    except SQLAlchemyError as error:
        refuse(
            f"The database cannot be migrated ({type(error).__name__}). Is it there, and may it be changed?"
        )
    finally:
        database.close()
    typer.echo(
        f"The schema is {target}" + (f", it was {before or 'empty'}." if before != target else " already.")
    )
