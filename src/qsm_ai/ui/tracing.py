"""Traces of the page, where ``OTEL_EXPORTER_OTLP_ENDPOINT`` says where to; nothing is imported otherwise."""

from __future__ import annotations

import atexit
import os

from opentelemetry import trace

from qsm_ai import __version__


def configure() -> bool:
    """Export this process's spans if the environment says so.

    Returns
    -------
    bool
        Whether it does.
    """
    stated = os.environ.get("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT")
    general = os.environ.get("OTEL_EXPORTER_OTLP_ENDPOINT")
    off = os.environ.get("OTEL_SDK_DISABLED", "").lower() == "true"
    if off or os.environ.get("OTEL_TRACES_EXPORTER", "otlp") == "none" or not (stated or general):
        return False
    from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
    from opentelemetry.sdk.resources import Resource
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import BatchSpanProcessor

    name = os.environ.get("OTEL_SERVICE_NAME") or "qsm-ai-frontend"
    provider = TracerProvider(
        resource=Resource.create({"service.name": name, "service.version": __version__})
    )
    provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
    trace.set_tracer_provider(provider)
    atexit.register(provider.force_flush)
    return True
