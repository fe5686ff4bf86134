"""Triton's own spans, below those of whoever asks it."""

from __future__ import annotations

from collections.abc import Mapping

SERVICE = "qsm-ai-triton"


def trace_arguments(environment: Mapping[str, str]) -> list[str]:
    """What makes tritonserver export its spans where everybody's go; nothing when they go nowhere.

    Parameters
    ----------
    environment : mapping
        With OpenTelemetry's own variables, such as ``OTEL_EXPORTER_OTLP_ENDPOINT``.

    Returns
    -------
    list of str
        Arguments. A request with a ``traceparent`` is traced whatever the rate; nothing else is.
    """
    from qsm_ai.observe.tracing import endpoint

    address = endpoint(environment)
    if address is None:
        return []
    return [
        "--trace-config=mode=opentelemetry",
        "--trace-config=level=TIMESTAMPS",
        "--trace-config=rate=1",
        f"--trace-config=opentelemetry,url={address}",
        f"--trace-config=opentelemetry,resource=service.name={SERVICE}",
        "--trace-config=opentelemetry,bsp_schedule_delay=1000",
    ]
