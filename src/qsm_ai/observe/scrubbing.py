"""What a client writes into an address stays out of traces."""

from __future__ import annotations

from opentelemetry.context import Context
from opentelemetry.sdk.trace import Span, SpanProcessor

WRITTEN_BY_CLIENTS = (
    "url.path",
    "url.query",
    "url.full",
    "http.request.method_original",
    "user_agent.original",
)
"""A path may be anything a client made up; the route that it matched is kept."""


class Scrubber(SpanProcessor):
    """Removes addresses as they were asked; goes before the processor that exports."""

    def on_start(self, span: Span, parent_context: Context | None = None) -> None:
        """Overwrite what a library noted at the start of a span."""
        for name in WRITTEN_BY_CLIENTS:
            if span.attributes and name in span.attributes:
                span.set_attribute(name, "withheld")
