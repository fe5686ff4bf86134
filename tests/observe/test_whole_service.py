"""What the running tiers show: the metrics of the table, and of a patient nothing."""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
import zipfile
from itertools import pairwise
from pathlib import Path
from typing import Any

import httpx
import nibabel as nib
import pytest
from lupa.luajit21 import LuaRuntime
from prometheus_client import Counter, Gauge, Histogram
from prometheus_client import Metric as Family
from prometheus_client.parser import text_string_to_metric_families

from qsm_ai.observe import catalogue
from qsm_ai.observe.catalogue import Metric, Tier
from qsm_ai.ui import metrics

TELLTALE = "Telltale"
"""In every name and header of what is sent, in some case or other."""

NORMALISE = Path(__file__).parents[2] / "deploy/monitoring/fluent-bit/normalise.lua"

VISITOR = """
import sys, time
from pathlib import Path
from qsm_ai.ui import log, tracing
log.configure("debug")
tracing.configure()
import qsm_ai.ui.app
from streamlit.testing.v1 import AppTest

page = AppTest.from_file(qsm_ai.ui.app.__file__, default_timeout=120).run()
for path in map(Path, sys.argv[1:]):
    page.file_uploader[0].upload(path.name, path.read_bytes())
page.run()
next(w for w in page.text_input if w.label == "Echo times (ms)").set_value("4 8 12")
next(w for w in page.number_input if w.label == "Field strength (T)").set_value(3.0)
page.run()
next(b for b in page.button if b.label == "Reconstruct").click()
page.run()
deadline = time.monotonic() + 200
while not any(b.label in {"Delete everything", "Try again"} for b in page.button):
    if time.monotonic() > deadline:
        sys.exit(3)
    time.sleep(0.3)
    page.run()
"""


@pytest.fixture(scope="module")
def named(files: Any, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A scan whose every name and header tells whose it is."""
    folder = tmp_path_factory.mktemp(f"{TELLTALE}-folder")
    paths = {}
    for role, source in (("phase", files.phase), ("magnitude", files.magnitude), ("mask", files.mask)):
        image = nib.load(source)
        image.header["descrip"] = b"Telltale^Jane 19700101"
        image.header["aux_file"] = b"telltale.txt"
        image.header["db_name"] = b"TELLTALE"
        word = {"magnitude": "mag"}.get(role, role)
        paths[role] = folder / f"sub-{TELLTALE}_{word}.nii.gz"
        nib.save(image, paths[role])
    return paths


@pytest.fixture(scope="module")
def visited(service: Any, named: dict[str, Path]) -> str:
    """What the page wrote while somebody reconstructed this scan with it."""
    clean = {key: value for key, value in os.environ.items() if not key.startswith(("QSM_", "OTEL_"))}
    ended = subprocess.run(
        [sys.executable, "-c", VISITOR, *map(str, named.values())],
        env={
            **clean,
            "QSM_API_URL": service.api,
            "OTEL_EXPORTER_OTLP_ENDPOINT": service.collector.url,
        },
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
        timeout=280,
    )
    assert ended.returncode == 0, ended.stdout
    return ended.stdout


@pytest.fixture(scope="module")
def troubled(service: Any, named: dict[str, Path], visited: str) -> None:
    """Everything that makes programs complain of a file by its name, or of a request by its words."""
    broken = named["phase"].read_bytes()[:-4000]
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w") as archive:
        archive.writestr(f"{TELLTALE}/IM1.dcm", bytes(128) + b"DICM" + TELLTALE.encode() * 40)
    sidecar = json.dumps({"EchoTime": TELLTALE, "PatientName": f"{TELLTALE}^Jane"}).encode()
    whole = named["phase"].read_bytes()
    told: list[str] = []
    with service.client() as client:
        echoes = {"te_ms": "4 8 12", "b0": "3"}
        for fields, parts in (
            (echoes, [("phase", (f"{TELLTALE}.nii.gz", broken))]),
            (
                {"b0": "3"},
                [("phase", (f"{TELLTALE}.nii.gz", whole)), ("sidecar", (f"{TELLTALE}.json", sidecar))],
            ),
            (echoes, [("phase", (f"{TELLTALE}.zip", packed.getvalue()))]),
            (echoes, [("phase", (f"{TELLTALE}.txt", TELLTALE.encode()))]),
            ({TELLTALE: TELLTALE}, [("phase", (f"{TELLTALE}.nii.gz", whole))]),
        ):
            answer = client.post(
                "/api/v1/reconstruct", files=parts, data=fields, headers={"User-Agent": TELLTALE}
            )
            assert 400 <= answer.status_code < 500, answer.text
            told.append(answer.text)
        for method, path in (
            ("GET", f"/api/v1/jobs/{TELLTALE}"),
            ("GET", f"/{TELLTALE}?name={TELLTALE}"),
            ("GET", f"/api/v1/jobs?state={TELLTALE}"),
            (TELLTALE.upper(), "/api/v1/jobs"),
            # A method that the parser of HTTP knows, and the service does not.
            ("PROPFIND", "/api/v1/jobs"),
        ):
            client.request(method, path, headers={"traceparent": f"00-{'ab' * 16}-{'cd' * 8}-01"})
    # Whoever sent a file learns which one it is: it was looked at.
    assert all(TELLTALE in text for text in told)


@pytest.mark.parametrize("tier", ["backend", "worker", "page"])
def test_every_line_of_a_tier_is_an_event(service: Any, troubled: None, tier: str) -> None:
    for event in getattr(service, tier).events():
        assert {"time", "level", "tier", "event"} <= event.keys()
        assert event["level"] in {"debug", "info", "warning", "error", "critical"}


def test_every_line_of_triton_gets_the_same_fields_or_says_nothing(service: Any, troubled: None) -> None:
    lua = LuaRuntime()
    lua.execute(NORMALISE.read_text())
    said = []
    for line in service.triton.log.read_text().splitlines():
        code, _, record = lua.globals().normalise("x", 0.0, lua.table_from({"log": line}))
        if code != -1:
            said.append(dict(record))
    assert all({"level", "tier", "event"} <= record.keys() for record in said)
    assert any(record["tier"] == "triton" and record["event"].startswith("Started GRPC") for record in said)


def test_no_tier_says_a_word_of_what_a_patient_may_be_known_by(
    service: Any, troubled: None, visited: str
) -> None:
    written = {
        "backend": service.backend.log.read_bytes(),
        "worker": service.worker.log.read_bytes(),
        "page": service.page.log.read_bytes(),
        "visitor": visited.encode(),
        "triton": service.triton.log.read_bytes(),
        "traces": b"".join(service.collector.bodies),
        **{
            url: httpx.get(url, timeout=60).content
            for url in (f"{service.api}/metrics", service.worker_metrics, service.page_metrics)
        },
    }
    assert all(written.values())
    telling = {tier for tier, text in written.items() if TELLTALE.lower().encode() in text.lower()}
    assert telling == set()


def test_a_visitors_click_begins_the_trace_that_ends_in_triton(
    service: Any, visited: str, until: Any
) -> None:
    def whole() -> bool:
        for span in service.collector.spans():
            if span.service == "qsm-ai-frontend" and span.name == "call.submit":
                return "qsm-ai-triton" in {s.service for s in service.collector.spans(span.trace_id)}
        return False

    until(whole)
    submitted = [json.loads(line) for line in visited.splitlines()]
    assert any(line.get("operation") == "submit" and "trace_id" in line for line in submitted)


def exposed(url: str) -> tuple[str, dict[str, set[tuple[str, ...]]]]:
    """A tier's text, and which labels the samples of each metric bear."""
    text = httpx.get(url, timeout=60).text
    found: dict[str, set[tuple[str, ...]]] = {}
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            # The parser gives every counter the ending that Triton's do not have.
            name = sample.name if sample.name in text else sample.name.removesuffix("_total")
            if family.type == "histogram":
                name = name.removesuffix("_bucket").removesuffix("_sum").removesuffix("_count")
            found.setdefault(name, set()).add(tuple(sorted(set(sample.labels) - {"le"})))
    return text, found


def names_of(family: Family) -> list[str]:
    """As they are exposed: the library keeps the ending of counters to itself."""
    return [f"{family.name}_total" if family.type == "counter" else family.name]


@pytest.mark.parametrize("tier", ["backend", "frontend", "triton"])
def test_the_table_of_metrics_is_what_a_tier_exposes(service: Any, troubled: None, tier: Tier) -> None:
    ports = service.triton.ports
    text, found = exposed(
        {
            "backend": f"{service.api}/metrics",
            "frontend": service.page_metrics,
            "triton": f"http://127.0.0.1:{ports.metrics}/metrics",
        }[tier]
    )
    table: dict[str, Metric] = catalogue.of(tier)
    assert set(found) <= set(table)
    missing = {m.name for m in table.values() if m.always and f"# TYPE {m.name} {m.kind}" not in text}
    assert missing == set()
    for name, labels in found.items():
        assert labels == {tuple(sorted(table[name].labels))}, name


def test_the_pages_own_metrics_are_made_as_the_table_says() -> None:
    table = {m.name: m for m in catalogue.of("frontend").values() if m.source == "qsm-ai"}
    own = [made for made in vars(metrics).values() if isinstance(made, (Counter, Gauge, Histogram))]
    found = {name: (made, family) for made in own for family in made.collect() for name in names_of(family)}
    assert set(found) == set(table)
    for name, (made, family) in found.items():
        metric = table[name]
        assert family.documentation == metric.help
        # Labels of other names are refused.
        labels = dict.fromkeys(metric.labels, "tried")
        made.labels(**labels)
        (tried,) = made.collect()
        ends = [
            s.labels["le"] for s in tried.samples if "le" in s.labels and labels.items() <= s.labels.items()
        ]
        made.remove(*labels.values())
        assert tuple(float(end) for end in ends if end != "+Inf") == (metric.buckets or ())


def test_a_worker_exposes_the_table_too_and_what_it_did(service: Any, troubled: None) -> None:
    text, found = exposed(service.worker_metrics)
    assert set(found) <= set(catalogue.of("backend"))
    values = {
        (s.name, tuple(sorted(s.labels.items()))): s.value
        for family in text_string_to_metric_families(text)
        for s in family.samples
    }
    done = (("method", "qsm-vit"), ("state", "done"))
    assert values["qsm_job_duration_seconds_count", done] >= 1
    assert values["qsm_job_end_to_end_seconds_count", done[:1]] >= 1
    assert values["qsm_triton_requests_total", (("outcome", "ok"),)] >= 1
    assert values["qsm_triton_request_duration_seconds_count", ()] >= 1
    assert values["qsm_worker_slots", ()] == 1
    assert values["qsm_worker_heartbeat_timestamp_seconds", ()] > 1e9
    assert values["qsm_storage_duration_seconds_count", (("operation", "put"),)] >= 1
    assert values["qsm_database_duration_seconds_count", (("operation", "select"),)] >= 1
    assert values["qsm_triton_up", ()] == 1
    assert values["qsm_circuit_open", ()] == 0


def test_labels_take_only_values_that_the_code_names(service: Any, troubled: None) -> None:
    text = httpx.get(f"{service.api}/metrics", timeout=60).text
    routes = set(httpx.get(f"{service.api}/openapi.json", timeout=60).json()["paths"])
    requests = [
        sample.labels
        for family in text_string_to_metric_families(text)
        if family.name == "http_requests"
        for sample in family.samples
    ]
    assert {labels["handler"] for labels in requests} <= routes | {"none"}
    assert {labels["method"] for labels in requests} <= {"GET", "POST", "other"}
    assert "other" in {labels["method"] for labels in requests}


def test_buckets_tell_whether_three_seconds_were_kept() -> None:
    near = [bound for bound in catalogue.DURATIONS if 2 <= bound <= 4]
    assert 3 in near
    assert max(b - a for a, b in pairwise(near)) <= 0.5


def test_names_follow_the_conventions_of_prometheus() -> None:
    for metric in catalogue.METRICS:
        if metric.source in {"Triton"}:
            continue
        assert metric.name.endswith("_total") == (metric.kind == "counter"), metric.name
        if metric.kind == "histogram":
            assert metric.name.endswith(("_seconds", "_score")), metric.name
            assert metric.buckets == tuple(sorted(metric.buckets))
        assert not any(label in {"le", "job", "instance"} for label in metric.labels)
