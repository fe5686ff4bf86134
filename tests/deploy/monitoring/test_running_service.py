"""A running service, from its metrics to Slack and the mailbox."""

from __future__ import annotations

import json
import re
import time
from pathlib import Path
from typing import Any

import pytest
import yaml
from typer.testing import CliRunner

from qsm_ai.cli import app
from qsm_ai.inference.server import TritonServer
from qsm_ai.observe.catalogue import METRICS

ROOT = Path(__file__).parents[3]
MONITORING = ROOT / "deploy/monitoring"
# Generous: on a busy machine a job may take half a minute.
pytestmark = pytest.mark.timeout(900)

PAGE = "PAGE: The network takes long"
RESOLVED = "Resolved: The network takes long"

# What has no series in this service, and why.
NO_GPU = {m.name for m in METRICS if m.name.startswith("nv_") and not m.always}
NO_VISITOR = {"qsm_page_runs_total"}
NOT_HAPPENED = {"qsm_access_denials_total", "qsm_storage_errors_total", "qsm_database_errors_total"}
ABSENT = NO_GPU | NO_VISITOR | NOT_HAPPENED


def wait_for(found: Any, what: Any, seconds: float = 240.0) -> None:
    end = time.monotonic() + seconds
    while not found():
        assert time.monotonic() < end, what()
        time.sleep(0.2)


@pytest.mark.timeout(1200)
def test_a_slowed_triton_is_told_to_slack_and_by_mail_and_taken_back(watched: Any) -> None:
    assert not any("The network takes long" in title for title in watched.slack.titles)
    watched.brake.write_text(f"{1.5 * watched.limit:g}")
    took = watched.job()
    assert took > watched.limit > watched.usual
    # Both limits are broken; the one that follows from the other is not told besides it.
    both = {"QsmInferenceP99High", "QsmLatencyP99High"}
    wait_for(lambda: both <= watched.firing(), watched.firing)
    wait_for(lambda: any(PAGE in t for t in watched.slack.titles), lambda: watched.log("alertmanager"))
    wait_for(lambda: any(PAGE in s for s in watched.mail.subjects), lambda: watched.log("alertmanager"))
    (told,) = [a for post in watched.slack.posts for a in post["attachments"] if PAGE in a["title"]][:1]
    assert told["color"] == "danger"
    assert told["title_link"].endswith("/docs/runbooks/QsmInferenceP99High.md")
    assert "for Triton's answer" in told["text"]
    (letter,) = [letter for letter in watched.mail.letters if PAGE in letter][:1]
    assert "text/html" in letter
    assert "docs/runbooks/QsmInferenceP99High.md" in letter.replace("=\r\n", "")
    watched.brake.unlink()
    end = time.monotonic() + 300
    while not any(RESOLVED in title for title in watched.slack.titles):
        assert time.monotonic() < end, watched.log("alertmanager")
        watched.job()
    wait_for(lambda: any(RESOLVED in s for s in watched.mail.subjects), lambda: watched.log("alertmanager"))
    wait_for(lambda: not both & watched.firing(), watched.firing)


def queries() -> list[tuple[str, str]]:
    """Where it stands, and the query, of every panel of every dashboard."""
    found = []
    for file in sorted((MONITORING / "grafana/dashboards").glob("*.json")):
        for panel in json.loads(file.read_text())["panels"]:
            for target in panel.get("targets", []):
                query = target["expr"].replace("$__rate_interval", "5m")
                assert "$" not in query
                found.append((f"{file.stem}: {panel['title']}", query))
    return found


def asks_for_what_is_absent(query: str) -> bool:
    return any(re.search(rf"\b{name}\b", query) for name in ABSENT)


def test_every_query_of_the_dashboards_returns_data(watched: Any) -> None:
    watched.brake.write_text("fail")
    for _ in range(2):
        watched.job(state="failed")
    watched.brake.unlink()
    refuse_a_scan(watched)
    asked = [(where, query) for where, query in queries() if not asks_for_what_is_absent(query)]
    assert len(asked) > 80
    assert without_data(watched, {query for _, query in asked}) == set()
    valid = [query for _, query in queries() if asks_for_what_is_absent(query)]
    for query in valid:  # these have no data here, but Prometheus must understand them
        watched.ask(query)


def without_data(watched: Any, asked: set[str], seconds: float = 300.0) -> set[str]:
    """Those of the queries that returned nothing lately, however many jobs are done meanwhile."""
    end = time.monotonic() + seconds
    while True:
        asked = {query for query in asked if not watched.ask(f"max_over_time(({query})[5m:5s])")}
        if not asked or time.monotonic() > end:
            return asked
        watched.job()
        time.sleep(4)  # to be scraped and evaluated


def refuse_a_scan(watched: Any) -> None:
    import httpx

    mask = watched.scan["mask"].read_bytes()
    answer = httpx.post(
        f"{watched.backend}/api/v1/reconstruct",
        files={"local_field": ("a.nii.gz", mask), "mask": ("b.nii.gz", b"no image")},
        timeout=120,
    )
    assert 400 <= answer.status_code < 500


def rules() -> list[dict[str, Any]]:
    files = [MONITORING / "prometheus/thresholds/gpu.yml", *(MONITORING / "prometheus/rules").glob("*.yml")]
    return [r for f in files for g in yaml.safe_load(f.read_text())["groups"] for r in g["rules"]]


def test_every_recorded_series_is_there(watched: Any) -> None:
    recorded = {rule["record"] for rule in rules() if "record" in rule}
    assert len(recorded) > 15
    assert without_data(watched, recorded) == set()


def selectors(expression: str) -> set[str]:
    """The series that an alert looks at: names with their label matchers."""
    bare = re.sub(r"\b(?:by|on|group_left)\s*\([^)]*\)", "", expression)
    found = re.findall(r"\b((?:qsm|nv|http|probe)[_:][\w:]+|up)\b(\{[^}]*\})?", bare)
    return {name + matchers for name, matchers in found}


def test_every_series_that_an_alert_looks_at_is_there(watched: Any) -> None:
    looked_at = set().union(*(selectors(rule["expr"]) for rule in rules() if "alert" in rule))
    looked_at = {s for s in looked_at if not asks_for_what_is_absent(s)} - {'up{job="streamlit-fe"}'}
    assert len(looked_at) > 20
    assert without_data(watched, looked_at) == set()


def doctor(watched: Any) -> dict[str, Any]:
    options = ["doctor", watched.backend, "--no-scan", "--json", f"--alertmanager={watched.alertmanager}"]
    report = json.loads(CliRunner().invoke(app, options).stdout)
    (found,) = [finding for finding in report["findings"] if finding["name"] == "alerts"]
    return found


def test_the_doctor_sends_a_test_alert_and_says_whether_it_arrived(watched: Any) -> None:
    found = doctor(watched)
    assert found["verdict"] == "ok", found
    assert found["facts"]["delivered"] == "email, slack"
    assert any("This is a test by qsm-ai doctor" in title for title in watched.slack.titles)
    assert any("This is a test by qsm-ai doctor" in subject for subject in watched.mail.subjects)
    watched.slack.refuses = True
    try:
        found = doctor(watched)
    finally:
        watched.slack.refuses = False
    assert found["verdict"] == "wrong", found
    assert "slack" in found["said"]
    assert "slack" in found["facts"]["failed"]


def test_a_lost_triton_is_told_alone_and_taken_back(watched: Any) -> None:
    """Latency, queue and circuit, which follow from it, are not told besides it."""
    before = len(watched.slack.titles)
    ports = watched.triton.ports
    watched.triton.stop()
    lost, back = "PAGE: No inference server answers", "Resolved: No inference server answers"
    wait_for(lambda: lost in watched.slack.titles, lambda: watched.log("alertmanager"))
    wait_for(lambda: lost in watched.mail.subjects, lambda: watched.log("alertmanager"))
    wait_for(lambda: "QsmTritonDown" in watched.firing(), watched.firing)
    time.sleep(5)
    told = " ".join(title for title in watched.slack.titles[before:] if title.startswith("PAGE"))
    follows = (
        "Jobs are held back",
        "The network takes long",
        "Maps take long",
        "has been waiting",
        "no worker takes one",
    )
    assert not any(sentence in told for sentence in follows), told
    watched.triton = TritonServer(watched.repository, precision="f32", threads=1, ports=ports).start()
    wait_for(lambda: back in watched.slack.titles, lambda: watched.log("alertmanager"))
