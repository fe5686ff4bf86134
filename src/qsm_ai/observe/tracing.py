"""One trace from the page's request to the call of Triton, across processes; off, and free, by default.

``OTEL_EXPORTER_OTLP_ENDPOINT`` (OpenTelemetry's own setting) switches it on. Without it only the API package
is imported, whose spans do nothing.
"""

from __future__ import annotations

import atexit
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from opentelemetry import context as otel_context
from opentelemetry import propagate, trace
from opentelemetry.trace import Span, SpanKind, StatusCode

__all__ = ["SpanKind", "carry", "configure", "continued", "endpoint", "flush", "span", "trace_id"]

ENDPOINTS = ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT")
FLUSH_MS = 3000

Attribute = str | int | float | bool
Carrier = Mapping[str, str]


def endpoint(environment: Mapping[str, str] = os.environ) -> str | None:
    """Where traces go, or None when they go nowhere.

    Parameters
    ----------
    environment : mapping

    Returns
    -------
    str or None
        Full address of OTLP over HTTP.
    """
    off = environment.get("OTEL_SDK_DISABLED", "").lower() == "true"
    if off or environment.get("OTEL_TRACES_EXPORTER", "otlp") == "none":
        return None
    if stated := environment.get(ENDPOINTS[0]):
        return stated
    general = environment.get(ENDPOINTS[1])
    return f"{general.rstrip('/')}/v1/traces" if general else None


def configure(service: str, version: str) -> bool:
    """Export this process's spans if the environment says where to.

    Parameters
    ----------
    service : str
        ``service.name`` in traces; ``OTEL_SERVICE_NAME`` and ``OTEL_RESOURCE_ATTRIBUTES`` override and add.
    version : str

    Returns
    -------
    bool
        Whether spans are exported.
    """
    address = endpoint()
    if address is None or not isinstance(trace.get_tracer_provider(), trace.ProxyTracerProvider):
        return address is not None
    from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
    from opentelemetry.sdk.resources import Resource
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import BatchSpanProcessor

    from qsm_ai.observe.scrubbing import Scrubber

    name = os.environ.get("OTEL_SERVICE_NAME") or service
    resource = Resource.create(
        {"service.name": name, "service.version": version, "service.instance.id": str(os.getpid())}
    )
    provider = TracerProvider(resource=resource, shutdown_on_exit=False)
    provider.add_span_processor(Scrubber())
    provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter(endpoint=address)))
    trace.set_tracer_provider(provider)
    atexit.register(flush)
    return True


def flush() -> None:
    """Send what has been collected; waits three seconds at most."""
    provider: Any = trace.get_tracer_provider()
    if hasattr(provider, "force_flush"):
        provider.force_flush(FLUSH_MS)


@contextmanager
def span(
    name: str,
    *,
    parent: Carrier | None = None,
    kind: SpanKind = SpanKind.INTERNAL,
    **attributes: Attribute,
) -> Iterator[Span]:
    """A span around what happens within; an error marks it by its kind alone.

    Parameters
    ----------
    name : str
    parent : mapping
        From ``carry`` in another process; the current span when None.
    kind : SpanKind
    **attributes
        Numbers and words of ours, nothing of a patient.

    Yields
    ------
    Span
    """
    context = continued(parent) if parent is not None else None
    with trace.get_tracer("qsm_ai").start_as_current_span(
        name,
        context=context,
        kind=kind,
        attributes={f"qsm.{key}": value for key, value in attributes.items()},
        record_exception=False,
        set_status_on_exception=False,
    ) as current:
        try:
            yield current
        except BaseException as error:
            current.set_attribute("error.type", type(error).__name__)
            current.set_status(StatusCode.ERROR)
            raise


def carry() -> dict[str, str]:
    """What continues the current trace in another process: ``traceparent``; empty without one."""
    carrier: dict[str, str] = {}
    propagate.inject(carrier)
    return {name: value for name, value in carrier.items() if name in {"traceparent", "tracestate"}}


def continued(carrier: Carrier) -> otel_context.Context:
    """The context that ``carry`` described; an empty carrier begins a trace of its own."""
    return propagate.extract(dict(carrier), context=otel_context.Context())


def trace_id() -> str | None:
    """Id of the current trace, in hexadecimal, where it is sampled; for exemplars."""
    context = trace.get_current_span().get_span_context()
    sampled = context.is_valid and context.trace_flags.sampled
    return trace.format_trace_id(context.trace_id) if sampled else None
