"""The application: ``create_app`` puts the parts together, ``app`` is what a server loads."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from fastapi import FastAPI
from starlette.middleware.cors import CORSMiddleware

from qsm_ai import __version__
from qsm_ai.api import problems, security
from qsm_ai.api.away import AwayMiddleware
from qsm_ai.api.body_limit import BodyLimit
from qsm_ai.api.context import Context
from qsm_ai.api.middleware import RequestMiddleware, is_untraced
from qsm_ai.api.problems import ProblemDocument
from qsm_ai.api.routes import account, admin, health, jobs, reconstruct, uploads
from qsm_ai.api.settings import Settings
from qsm_ai.observe import logs, tracing

DESCRIPTION = """
Phase of a multi-echo gradient-echo scan in, quantitative susceptibility map (ppm) out.

Send a scan to `/api/v1/reconstruct`, follow the job, fetch its volumes and slices. Every error is a problem
document (RFC 9457) with a `code` and a `mend`. For research use; not a medical device.
"""


def create_app(settings: Settings | None = None) -> FastAPI:
    """The backend with its own database, store, worker and metrics.

    Parameters
    ----------
    settings : Settings
        From the environment when left out.
    """
    settings = settings or Settings()
    logs.configure("backend", settings.log_level)
    tracing.configure("qsm-ai-backend", __version__)

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        context: Context = app.state.context
        async with context.running():
            yield

    app = FastAPI(
        title="QSM-AI",
        version=__version__,
        description=DESCRIPTION,
        lifespan=lifespan,
        license_info={"name": "Apache-2.0"},
        telemetry={
            # Prometheus and standard output have the rest; validation errors would say what a user sent.
            "metrics": False,
            "logs": False,
            "operation_spans": False,
            "auto_configure": False,
            "exclude": is_untraced,
        },
    )
    app.state.context = Context(settings)
    problems.install(app)
    security.install(app)
    app.include_router(reconstruct.router)
    app.include_router(uploads.router)
    app.include_router(jobs.router)
    app.include_router(account.router)
    app.include_router(admin.router)
    app.include_router(health.router)
    _document_problems(app)
    app.add_middleware(AwayMiddleware)
    app.add_middleware(BodyLimit)
    app.add_middleware(RequestMiddleware)
    app.add_middleware(
        CORSMiddleware,
        allow_origins=settings.cors_origins,
        allow_methods=["GET", "POST", "PUT", "DELETE"],
        allow_headers=[
            "Authorization",
            "Content-Range",
            "Content-Type",
            "Idempotency-Key",
            "If-None-Match",
            "If-Range",
            "Last-Event-ID",
            "Range",
            "X-Request-ID",
        ],
        expose_headers=[
            "Location",
            "Retry-After",
            "Content-Range",
            "Content-Disposition",
            "ETag",
            "Link",
            "X-Request-ID",
        ],
        allow_credentials=bool(settings.cors_origins),
        max_age=600,
    )
    return app


def _document_problems(app: FastAPI) -> None:
    """Say in the OpenAPI document what errors really look like."""
    original = app.openapi

    def openapi() -> dict[str, Any]:
        if app.openapi_schema is None:
            document = original()
            security.document(document)
            schemas = document["components"]["schemas"]
            schemas["ProblemDocument"] = ProblemDocument.model_json_schema(
                ref_template="#/components/schemas/{model}"
            )
            for name in ("HTTPValidationError", "ValidationError"):
                schemas.pop(name, None)
            for path in document["paths"].values():
                for operation in path.values():
                    refused = operation["responses"].get("422")
                    if refused is not None:
                        refused["content"] = {
                            problems.MEDIA_TYPE: {"schema": {"$ref": "#/components/schemas/ProblemDocument"}}
                        }
        assert app.openapi_schema is not None  # noqa: S101 - the original sets it
        return app.openapi_schema

    app.openapi = openapi  # type: ignore[method-assign]


def __getattr__(name: str) -> FastAPI:
    # `uvicorn qsm_ai.api.app:app` gets an application; an import alone opens no database.
    if name == "app":
        globals()["app"] = create_app()
        return globals()["app"]  # type: ignore[no-any-return]
    raise AttributeError(name)
