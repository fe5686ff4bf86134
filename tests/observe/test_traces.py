"""One trace from whoever asks to the network in Triton, through every process on the way."""

from __future__ import annotations

import secrets
from collections.abc import Callable
from typing import Any

import httpx
import opentelemetry.trace
import pytest
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from prometheus_client.openmetrics.parser import text_string_to_metric_families

from qsm_ai.observe import tracing
from qsm_ai.observe.scrubbing import Scrubber
from qsm_ai.reconstruction.stages import STAGES
from qsm_ai.ui.measuring import calling, drawing

OPENMETRICS = {"Accept": "application/openmetrics-text; version=1.0.0"}


@pytest.fixture(scope="module")
def traced(service: Any, files: Any, until: Callable[..., Any]) -> dict[str, Any]:
    """A scan sent by a client that traces, and everything that was exported of it."""
    trace_id, span_id = secrets.token_hex(16), secrets.token_hex(8)
    answer = service.submit(
        {"phase": files.phase, "magnitude": files.magnitude, "mask": files.mask},
        headers={"traceparent": f"00-{trace_id}-{span_id}-01"},
    )
    assert answer.status_code == 200, answer.text

    def spans() -> list[Any] | None:
        found = service.collector.spans(trace_id)
        ends = {(span.service, span.name.split(" ")[0]) for span in found}
        whole = {("qsm-ai-backend", "POST"), ("qsm-ai-worker", "job"), ("qsm-ai-triton", "InferRequest")}
        return found if whole <= ends else None

    return {
        "trace_id": trace_id,
        "span_id": span_id,
        "job": answer.json()["id"],
        "request_id": answer.headers["x-request-id"],
        "spans": until(spans),
    }


def test_one_trace_leads_from_the_request_to_triton_across_processes(traced: dict[str, Any]) -> None:
    spans = {span.span_id: span for span in traced["spans"]}
    span = next(s for s in spans.values() if (s.service, s.name) == ("qsm-ai-triton", "compute"))
    way = [span]
    while way[-1].parent_id in spans:
        way.append(spans[way[-1].parent_id])
    assert [(span.service, span.name) for span in way] == [
        ("qsm-ai-triton", "compute"),
        ("qsm-ai-triton", "qsm_vit"),
        ("qsm-ai-triton", "InferRequest"),
        ("qsm-ai-compute", "triton.infer"),
        ("qsm-ai-compute", "stage.network"),
        ("qsm-ai-compute", "compute.reconstruct"),
        ("qsm-ai-worker", "job"),
        ("qsm-ai-backend", "POST /api/v1/reconstruct"),
    ]
    assert way[-1].parent_id == traced["span_id"], "the client's own span is the root"


def test_every_stage_of_the_table_has_its_span(traced: dict[str, Any]) -> None:
    names = [span.name for span in traced["spans"] if span.name.startswith("stage.")]
    assert names == [f"stage.{stage.name}" for stage in STAGES]


def test_the_check_of_the_upload_is_part_of_the_request(traced: dict[str, Any]) -> None:
    spans = {span.name: span for span in traced["spans"]}
    assert spans["compute.validate"].parent_id == spans["POST /api/v1/reconstruct"].span_id


def test_logs_of_every_process_name_the_trace_the_request_and_the_job(
    service: Any, traced: dict[str, Any]
) -> None:
    ids = {key: traced[key] for key in ("trace_id", "request_id")}
    (request,) = (
        e
        for e in service.backend.events()
        if e["event"] == "request" and e.get("request_id") == ids["request_id"]
    )
    ended = next(
        e for e in service.worker.events() if e["event"] == "job.ended" and e["job"] == traced["job"]
    )
    for event in (request, ended):
        assert {key: event[key] for key in ids} == ids
    assert ended["user"] == request.get("user", ended["user"])
    assert {request["tier"], ended["tier"]} == {"backend", "worker"}


def test_latency_leads_to_the_trace_by_its_exemplar(service: Any, traced: dict[str, Any]) -> None:
    def traces(url: str, metric: str) -> set[str]:
        text = httpx.get(url, headers=OPENMETRICS, timeout=30).text
        family = next(f for f in text_string_to_metric_families(text) if f.name == metric)
        return {s.exemplar.labels["trace_id"] for s in family.samples if s.exemplar}

    assert traced["trace_id"] in traces(f"{service.api}/metrics", "http_request_duration_seconds")
    assert traced["trace_id"] in traces(service.worker_metrics, "qsm_job_end_to_end_seconds")


def test_probes_and_polls_leave_no_trace(service: Any, collector: Any) -> None:
    before = len(collector.spans())
    with service.client() as client:
        for path in ("/healthz", "/readyz", "/metrics", "/api/v1/jobs"):
            client.get(path)
    names = [span.name for span in collector.spans()[before:]]
    assert not any(name.startswith("GET") for name in names)


@pytest.fixture
def exporter(monkeypatch: pytest.MonkeyPatch) -> InMemorySpanExporter:
    """What this process would export."""
    exporter = InMemorySpanExporter()
    provider = TracerProvider()
    provider.add_span_processor(Scrubber())
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    monkeypatch.setattr(opentelemetry.trace, "_TRACER_PROVIDER", provider)
    return exporter


def test_the_page_begins_the_trace_of_what_it_sends(exporter: InMemorySpanExporter) -> None:
    with calling("POST", "/api/v1/reconstruct") as call:
        call.status = 202
    with calling("GET", f"/api/v1/jobs/{'0' * 32}") as poll:
        poll.status = 200
    (span,) = exporter.get_finished_spans()
    assert span.name == "call.submit"
    assert call.headers["traceparent"].split("-")[1] == f"{span.context.trace_id:032x}"
    assert "traceparent" not in poll.headers


@pytest.mark.parametrize("around", [drawing, tracing.span])
def test_an_error_in_a_span_is_told_by_its_kind_alone(
    exporter: InMemorySpanExporter, around: Callable[[str], Any]
) -> None:
    with pytest.raises(OSError, match="Telltale"), around("scan"):
        raise OSError("Telltale")
    (span,) = exporter.get_finished_spans()
    assert span.attributes is not None
    assert span.attributes["error.type"] == "OSError"
    assert "Telltale" not in span.to_json()


def test_addresses_as_they_were_asked_are_withheld(exporter: InMemorySpanExporter) -> None:
    attributes = {"url.path": "/Telltale", "url.query": "name=Telltale", "http.route": "/api/v1/jobs"}
    tracer = opentelemetry.trace.get_tracer("some library")
    with tracer.start_as_current_span("GET", attributes=attributes):
        pass
    (span,) = exporter.get_finished_spans()
    assert "Telltale" not in span.to_json()
    assert span.attributes is not None
    assert span.attributes["http.route"] == "/api/v1/jobs"


@pytest.mark.parametrize(
    ("environment", "address"),
    [
        ({}, None),
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": "http://c:4318/"}, "http://c:4318/v1/traces"),
        ({"OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": "http://c/t"}, "http://c/t"),
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": "http://c", "OTEL_SDK_DISABLED": "true"}, None),
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": "http://c", "OTEL_TRACES_EXPORTER": "none"}, None),
    ],
)
def test_traces_go_where_opentelemetrys_own_settings_say(
    environment: dict[str, str], address: str | None
) -> None:
    assert tracing.endpoint(environment) == address
