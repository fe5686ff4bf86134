"""Rules, routes, pages and logs: right on paper, by the tools' own checks."""

import json
import re
import runpy
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import typer
import yaml

from qsm_ai.api.settings import Settings
from qsm_ai.cli import app
from qsm_ai.observe.catalogue import DURATIONS, METRICS

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
GET_PROMETHEUS = "apt-get install prometheus"
GET_ALERTMANAGER = "apt-get install prometheus-alertmanager"

CASES = ("alerts.yml", "alerts-slo.yml")
FOREIGN = {"up", "probe_success", "probe_ssl_earliest_cert_expiry", "probe_http_status_code"}
"""Metrics of Prometheus itself and of its probe; all others are in the catalogue."""

Rule = dict[str, Any]


@pytest.fixture(scope="module")
def monitoring(deploy: Path) -> Path:
    return deploy / "monitoring"


@pytest.fixture(scope="module")
def rules(monitoring: Path) -> list[Rule]:
    prometheus = monitoring / "prometheus"
    files = [prometheus / "thresholds/gpu.yml", *sorted((prometheus / "rules").glob("*.yml"))]
    return [
        rule for f in files for group in yaml.safe_load(f.read_text())["groups"] for rule in group["rules"]
    ]


@pytest.fixture(scope="module")
def alerts(rules: list[Rule]) -> list[Rule]:
    return [rule for rule in rules if "alert" in rule]


def run(*command: str, cwd: Path | None = None, given: str = "") -> subprocess.CompletedProcess[str]:
    return subprocess.run(command, cwd=cwd, input=given, capture_output=True, text=True, check=False)


def asked_metrics(text: str) -> set[str]:
    """Names of metrics in an expression, whatever its labels and windows."""
    bare = re.sub(r"\{[^}]*\}|\[[^\]]*\]|\b(?:by|on|group_left)\s*\([^)]*\)", "", text)
    return set(re.findall(r"\b(?:(?:qsm|nv|http|process|probe|streamlit)[_:][\w:]+|up\b)", bare))


def exposed_metrics(rules: list[Rule]) -> set[str]:
    parts = {"histogram": ("_bucket", "_count", "_sum")}
    catalogued = {m.name + part for m in METRICS for part in parts.get(m.kind, ("",))}
    return catalogued | FOREIGN | {rule["record"] for rule in rules if "record" in rule}


# ---------------------------------------------------------------------- rules


@pytest.mark.parametrize("cases", CASES)
def test_alerts_fire_when_they_must_and_only_then(tool: Callable[..., str], cases: str) -> None:
    report = run(tool("promtool", get=GET_PROMETHEUS), "test", "rules", cases, cwd=HERE)
    assert report.returncode == 0, report.stdout + report.stderr


def test_every_alert_is_tested_both_firing_and_silent(alerts: list[Rule]) -> None:
    fires, silent = set(), set()
    for cases in CASES:
        for test in yaml.safe_load((HERE / cases).read_text())["tests"]:
            for case in test["alert_rule_test"]:
                for expected in case["exp_alerts"]:
                    fires.add((case["alertname"], expected["exp_labels"]["severity"]))
                if not case["exp_alerts"]:
                    silent.add(case["alertname"])
    assert fires == {(rule["alert"], rule["labels"]["severity"]) for rule in alerts}
    assert silent == {rule["alert"] for rule in alerts}


def test_an_alert_says_what_is_wrong_how_bad_it_is_and_where_to_read_on(alerts: list[Rule]) -> None:
    for rule in alerts:
        assert rule["labels"]["severity"] in {"page", "ticket"}
        assert set(rule["annotations"]) == {"summary", "description", "runbook_url"}
        assert rule["annotations"]["runbook_url"] == f"docs/runbooks/{rule['alert']}.md"


def test_rules_ask_only_for_metrics_that_somebody_exposes(rules: list[Rule]) -> None:
    asked = set().union(*(asked_metrics(rule["expr"]) for rule in rules))
    assert len(asked) > 30
    assert asked - exposed_metrics(rules) == set()


def limits(monitoring: Path, device: str) -> dict[str, str]:
    """Thresholds by their name."""
    groups = yaml.safe_load((monitoring / f"prometheus/thresholds/{device}.yml").read_text())["groups"]
    return {rule["record"]: rule["expr"] for rule in groups[0]["rules"]}


def seconds_of(expression: str) -> float:
    """The number in ``vector(…)``."""
    return float(expression.removeprefix("vector(").removesuffix(")"))


def test_gpus_and_cpus_differ_in_limits_only(monitoring: Path, rules: list[Rule]) -> None:
    gpu, cpu = limits(monitoring, "gpu"), limits(monitoring, "cpu")
    assert gpu.keys() == cpu.keys()
    assert gpu["qsm:threshold:inference_p99_seconds"] == "vector(3)"
    assert cpu["qsm:threshold:inference_p99_seconds"] != "vector(3)"
    used = {name for rule in rules for name in asked_metrics(rule["expr"]) if ":threshold:" in name}
    assert used == gpu.keys()


def test_limits_of_time_can_be_kept(monitoring: Path) -> None:
    """By what was measured on two cores: a scan, and one that it waits for, stay below the limit of P99."""
    timing = json.loads((ROOT / "benchmarks/results/speed.json").read_text())["timing"]
    (network,) = [stage for stage in timing["stages"] if stage["stage"] == "network"]
    a_patch = network["seconds"] / timing["patches"]
    # A GPU takes off the arithmetic of the network and nothing else.
    arithmetic = network["operations"] / timing["convolution_rate"]
    shortest = {"gpu": timing["seconds"] - arithmetic, "cpu": timing["seconds"]}
    for device, a_scan in shortest.items():
        limit = {name: seconds_of(expr) for name, expr in limits(monitoring, device).items()}
        assert limit["qsm:threshold:job_p99_seconds"] > 2 * a_scan, device
        # A quantile is interpolated: between the ends of a bucket, where one value lies is not known.
        for name in ("qsm:threshold:job_p99_seconds", "qsm:threshold:inference_p99_seconds"):
            assert limit[name] in DURATIONS
    patches = 2 * Settings().triton_in_flight
    assert seconds_of(limits(monitoring, "cpu")["qsm:threshold:inference_p99_seconds"]) > patches * a_patch


@pytest.mark.parametrize("device", ["gpu", "cpu"])
def test_pages_name_the_limits_that_hold(monitoring: Path, device: str) -> None:
    limit = {name: f"{seconds_of(expr):g}" for name, expr in limits(monitoring, device).items()}
    on = {"gpu": "on a GPU", "cpu": "on CPUs"}[device]
    promised = (ROOT / "docs/slo.md").read_text()
    assert f"{limit['qsm:threshold:inference_p99_seconds']} s {on}" in promised
    assert f"below {limit['qsm:threshold:job_p99_seconds']} s |" in promised
    assert f"{limit['qsm:threshold:inference_p99_seconds']} s {on}" in pages()["QsmInferenceP99High"]
    assert f"{limit['qsm:threshold:job_p99_seconds']} s" in pages()["QsmLatencyP99High"]


def test_alerts_bear_with_a_start_where_nobody_is_kept_ready(deploy: Path, monitoring: Path) -> None:
    """The cases of alerts.yml are given the very series that the component makes."""
    component = deploy / "kubernetes/components/scale-to-zero"
    (group,) = yaml.safe_load((component / "rules.yaml").read_text())["spec"]["groups"]
    (rule,) = group["rules"]
    (name,) = rule["labels"].values()
    series = f'{rule["record"]}{{of="{name}"}}'
    cases = yaml.safe_load((HERE / "alerts.yml").read_text())["tests"]
    given = [s for case in cases for s in case["input_series"] if s["series"] == series]
    assert len(given) == 3
    assert {s["values"].partition("x")[0] for s in given} == {f"{seconds_of(rule['expr']):g}"}
    for device in ("gpu", "cpu"):
        assert limits(monitoring, device)[rule["record"]] == "vector(0)"


def test_what_is_promised_is_what_is_measured(monitoring: Path, rules: list[Rule]) -> None:
    promise = (ROOT / "docs/slo.md").read_text()
    slo = runpy.run_path(str(monitoring / "slo_rules.py"))
    written = (monitoring / "prometheus/rules/slo.yml").read_text()
    assert written == slo["text"](), "make docs"
    told = re.findall(r"^\| (page|ticket) \| (.*?) \| (\w+) \| (\w+) \|", promise, re.MULTILINE)
    burns = [("page", b) for b in slo["FAST"]] + [("ticket", b) for b in slo["SLOW"]]
    assert [(kind, long, short) for kind, _, long, short in told] == [(k, b.long, b.short) for k, b in burns]
    for (_, speed, _, _), (_, burn) in zip(told, burns, strict=True):
        assert speed == ("faster than allowed" if burn.factor == 1 else f"{burn.factor:g} times too fast")
    budget = next(r["expr"] for r in rules if r.get("record") == "qsm:threshold:error_budget")
    assert budget == "vector(0.01)"
    assert "| 99 % are not answered with 5xx |" in promise


@pytest.mark.parametrize("device", ["gpu", "cpu"])
def test_rules_and_the_configuration_of_prometheus_are_valid(
    tool: Callable[..., str], monitoring: Path, device: str
) -> None:
    promtool = tool("promtool", get=GET_PROMETHEUS)
    prometheus = monitoring / "prometheus"
    files = [*(prometheus / "rules").glob("*.yml"), prometheus / f"thresholds/{device}.yml"]
    checked = run(promtool, "check", "rules", *map(str, files))
    assert checked.returncode == 0, checked.stdout + checked.stderr
    configured = run(promtool, "check", "config", "--syntax-only", str(prometheus / "prometheus.yml"))
    assert configured.returncode == 0, configured.stdout + configured.stderr


# ---------------------------------------------------------------------- runbook


def pages() -> dict[str, str]:
    return {page.stem: page.read_text() for page in sorted((ROOT / "docs/runbooks").glob("*.md"))}


def test_every_alert_has_its_page_and_every_page_its_alert(alerts: list[Rule]) -> None:
    names = {rule["alert"] for rule in alerts}
    assert names == pages().keys()
    contents = (ROOT / "docs/runbook.md").read_text()
    assert names == set(re.findall(r"^\| (Qsm\w+) \|", contents, re.MULTILINE))
    for rule in alerts:
        assert rule["labels"]["severity"] in pages()[rule["alert"]].splitlines()[2]


@pytest.mark.parametrize("name", pages())
def test_a_page_says_what_it_means_what_to_look_at_and_what_to_do(name: str) -> None:
    text = pages()[name]
    assert re.findall(r"^#+ (.*)$", text, re.MULTILINE) == [
        name,
        "What it means",
        "What to look at",
        "What to do",
    ]
    for link in re.findall(r"\]\(([^)#]+)", text):
        assert (ROOT / "docs/runbooks" / link).exists(), link


def commands_of(typer_app: typer.Typer) -> set[str]:
    return set(typer.main.get_command(typer_app).commands)  # type: ignore[attr-defined]


def test_what_the_pages_tell_to_type_exists(rules: list[Rule], deploy: Path) -> None:
    text = "\n".join([*pages().values(), (ROOT / "docs/runbook.md").read_text()])
    services = yaml.safe_load((deploy / "compose.yaml").read_text())["services"]
    told = re.findall(r"docker compose (?:logs|restart)(?: --tail=\d+)? ([\w-]+)", text)
    assert told
    assert set(told) <= services.keys()
    manifests = "\n".join(f.read_text() for f in (deploy / "kubernetes").rglob("*.yaml"))
    deployments = set(re.findall(r"kind: Deployment\nmetadata:\n  name: ([\w-]+)", manifests))
    assert set(re.findall(r"deployment/([\w-]+)", text)) <= deployments
    assert set(re.findall(r"app\.kubernetes\.io/name=([\w-]+)", text)) <= deployments
    assert set(re.findall(r"^\s*qsm-ai (\w+)", text, re.MULTILINE)) <= commands_of(app)
    assert set(re.findall(r"`qsm-ai (\w+)", text)) <= commands_of(app)
    assert set(re.findall(r"^make ([\w-]+)", text, re.MULTILINE)) <= set(
        re.findall(r"^([\w-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE)
    )


def test_what_the_pages_tell_to_query_and_to_set_exists(rules: list[Rule]) -> None:
    text = "\n".join(pages().values())
    code = "\n".join(
        [*re.findall(r"```promql\n(.*?)```", text, re.DOTALL), *re.findall(r"`([^`\n]+)`", text)]
    )
    asked = asked_metrics(code)
    assert len(asked) > 20
    assert asked - exposed_metrics(rules) == set()
    settings = set(re.findall(r"QSM_[A-Z_]+", text))
    known = {f"QSM_{field.upper()}" for field in Settings.model_fields} | {"QSM_ALERT_THRESHOLDS"}
    assert settings - known == set()


def test_queries_of_the_pages_are_valid(tool: Callable[..., str], tmp_path: Path) -> None:
    text = "\n".join(pages().values())
    queries = [
        q.strip() for block in re.findall(r"```promql\n(.*?)```", text, re.DOTALL) for q in block.splitlines()
    ]
    rules = {
        "groups": [
            {"name": "g", "rules": [{"record": f"r{i}", "expr": q} for i, q in enumerate(queries) if q]}
        ]
    }
    (tmp_path / "queries.yml").write_text(json.dumps(rules))
    report = run(tool("promtool", get=GET_PROMETHEUS), "check", "rules", str(tmp_path / "queries.yml"))
    assert report.returncode == 0, report.stdout + report.stderr


# ---------------------------------------------------------------------- routes


@pytest.mark.parametrize(
    ("labels", "receiver"),
    [
        (["alertname=QsmTritonDown", "severity=page"], "page"),
        (["alertname=QsmGpuSaturated", "severity=ticket"], "ticket"),
        (["alertname=QsmDoctorTest", "severity=ticket"], "page"),
        (["alertname=SomethingElse"], "ticket"),
    ],
)
def test_pages_and_tickets_take_their_routes(
    tool: Callable[..., str], monitoring: Path, labels: list[str], receiver: str
) -> None:
    configuration = f"--config.file={monitoring / 'alertmanager/alertmanager.yml'}"
    amtool = tool("amtool", get=GET_ALERTMANAGER)
    assert run(amtool, "check-config", configuration.split("=")[1]).returncode == 0
    assert run(amtool, "config", "routes", "test", configuration, *labels).stdout.strip() == receiver


def test_what_silences_and_is_silenced_are_alerts_of_ours(monitoring: Path, alerts: list[Rule]) -> None:
    names = {rule["alert"] for rule in alerts} | {"QsmDoctorTest"}
    configured = yaml.safe_load((monitoring / "alertmanager/alertmanager.yml").read_text())
    silenced_by: dict[str, set[str]] = {}
    for rule in configured["inhibit_rules"]:
        sources = _matched(rule["source_matchers"], names)
        targets = _matched(rule["target_matchers"], names)
        assert sources
        assert targets
        for source in sources:
            silenced_by.setdefault(source, set()).update(targets)
    follows = {"QsmInferenceP99High", "QsmLatencyP99High", "QsmCircuitOpen", "QsmQueueOld"}
    assert follows <= silenced_by["QsmTritonDown"]
    assert silenced_by["QsmInferenceP99High"] == {"QsmLatencyP99High"}
    assert "QsmTritonDown" in silenced_by["QsmBackendDown"]
    mutual = {
        (a, b) for a, bs in silenced_by.items() for b in bs if a != b and a in silenced_by.get(b, set())
    }
    assert mutual == set(), "two that silence each other would both be silent"


def _matched(matchers: list[str], names: set[str]) -> set[str]:
    """Names of alerts that fit all matchers on the name; a name in a matcher that is no alert's fails."""
    found = set(names)
    for matcher in matchers:
        label, operator, value = re.fullmatch(r'(\w+) (=~|!~|!=|=) "?([^"]*)"?', matcher).groups()  # type: ignore[union-attr]
        if label != "alertname":
            continue
        assert all(any(re.fullmatch(part, n) for n in names) for part in value.split("|")), matcher
        fits = {n for n in names if re.fullmatch(value, n)}
        found &= fits if operator in {"=", "=~"} else names - fits
    return found


def told(status: str, severity: str, *summaries: str) -> str:
    """What Alertmanager hands to a template."""
    page = "docs/runbooks/QsmQueueOld.md"
    alerts = [
        {
            "status": status,
            "labels": {"alertname": "QsmQueueOld", "severity": severity},
            "annotations": {
                "summary": summary,
                "description": "It waits.",
                "runbook_url": "docs/runbooks/QsmQueueOld.md",
            },
            "startsAt": "2026-11-23T05:00:00Z",
            "endsAt": "2026-11-23T05:10:00Z",
        }
        for summary in summaries
    ]
    return json.dumps(
        {
            "receiver": "page",
            "status": status,
            "alerts": alerts,
            "commonLabels": {"alertname": "QsmQueueOld", "severity": severity},
            "commonAnnotations": {"runbook_url": page},
        }
    )


@pytest.mark.parametrize(
    ("status", "severity", "summaries", "title", "colour"),
    [
        ("firing", "page", ["A scan waits"], "PAGE: A scan waits", "danger"),
        ("firing", "ticket", ["A scan waits"], "Ticket: A scan waits", "warning"),
        ("firing", "page", ["One waits", "Another waits"], "PAGE: One waits (2 in all)", "danger"),
        ("resolved", "page", ["A scan waits"], "Resolved: A scan waits", "good"),
    ],
)
def test_messages_read_well(
    tool: Callable[..., str],
    monitoring: Path,
    tmp_path: Path,
    status: str,
    severity: str,
    summaries: list[str],
    title: str,
    colour: str,
) -> None:
    amtool = tool("amtool", get=GET_ALERTMANAGER)
    (tmp_path / "data.json").write_text(told(status, severity, *summaries))

    def rendered(name: str) -> str:
        templates = f"--template.glob={monitoring / 'alertmanager/*.tmpl'}"
        data, text = (
            f"--template.data={tmp_path / 'data.json'}",
            f'--template.text={{{{ template "{name}" . }}}}',
        )
        done = run(amtool, "template", "render", templates, data, text)
        assert done.returncode == 0, done.stderr
        return done.stdout

    assert rendered("qsm.title") == title
    assert rendered("qsm.colour") == colour
    text = rendered("qsm.text")
    assert [line for line in text.splitlines() if line in summaries] == summaries
    assert ("Since 2026-11-23 05:00 UTC" if status == "firing" else "to 05:10 UTC") in text
    assert text.splitlines()[-1].endswith("/docs/runbooks/QsmQueueOld.md")
    assert "no value" not in text + rendered("qsm.html")
    assert all(f"<b>{s}</b>" in rendered("qsm.html") for s in summaries)


# ---------------------------------------------------------------------- dashboards


def test_dashboards_are_those_of_their_code(monitoring: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("grafana_foundation_sdk")
    monkeypatch.syspath_prepend(str(monitoring / "dashboards"))
    made = runpy.run_path(str(monitoring / "dashboards/__main__.py"))["dashboards"]()
    kept = {file.name: file.read_text() for file in (monitoring / "grafana/dashboards").glob("*.json")}
    assert kept == made, "make dashboards"


def test_clusters_get_the_same_rules_and_dashboards(monitoring: Path, deploy: Path) -> None:
    made = runpy.run_path(str(monitoring / "kubernetes_rules.py"))
    component = deploy / "kubernetes/components/monitoring"
    assert (component / "rules.yaml").read_text() == made["manifest"](), "make docs"
    assert (component / "dashboards.yaml").read_text() == made["dashboards"](), "make dashboards"
    maps = yaml.safe_load_all((component / "dashboards.yaml").read_text())
    assert {name: json.loads(text) for m in maps for name, text in m["data"].items()} == {
        f"{name}.json": board for name, board in boards().items()
    }
    assert "dashboards.yaml" in (component / "kustomization.yaml").read_text()


def boards() -> dict[str, Any]:
    folder = ROOT / "deploy/monitoring/grafana/dashboards"
    return {file.stem: json.loads(file.read_text()) for file in sorted(folder.glob("*.json"))}


def test_grafana_finds_dashboards_and_data_source_where_they_are(monitoring: Path, deploy: Path) -> None:
    provisioning = monitoring / "grafana/provisioning"
    (source,) = yaml.safe_load((provisioning / "datasources/prometheus.yaml").read_text())["datasources"]
    (provider,) = yaml.safe_load((provisioning / "dashboards/qsm.yaml").read_text())["providers"]
    mounts = yaml.safe_load((deploy / "compose.yaml").read_text())["services"]["grafana"]["volumes"]
    assert f"./monitoring/grafana/dashboards:{provider['options']['path']}:ro" in mounts
    for name, board in boards().items():
        assert board["uid"] == name
        panels = [panel for panel in board["panels"] if panel["type"] != "row"]
        assert all(panel["datasource"] == {"type": source["type"], "uid": source["uid"]} for panel in panels)
        assert all(panel["description"] and panel["targets"] for panel in panels)
        assert len({panel["title"] for panel in panels}) == len(panels)
        places = [(p["gridPos"]["x"], p["gridPos"]["y"]) for p in board["panels"]]
        assert len(set(places)) == len(places), "panels lie on one another"


def test_dashboards_ask_only_for_metrics_that_somebody_exposes(rules: list[Rule]) -> None:
    queries = [t["expr"] for b in boards().values() for p in b["panels"] for t in p.get("targets", [])]
    asked = set().union(*map(asked_metrics, queries))
    assert len(asked) > 40
    assert asked - exposed_metrics(rules) == set()


# ---------------------------------------------------------------------- logs


@pytest.mark.parametrize("where", ["stdout", "cloudwatch", "cloud-logging"])
def test_logs_of_all_tiers_are_read_as_json_and_go_to_one_place(monitoring: Path, where: str) -> None:
    shipped = yaml.safe_load((monitoring / f"fluent-bit/{where}.yaml").read_text())
    parsers = yaml.safe_load((monitoring / "fluent-bit/parsers.yaml").read_text())["parsers"]
    (source,), (destination,) = shipped["pipeline"]["inputs"], shipped["pipeline"]["outputs"]
    assert source["db"], "without a position on disk, logs would be lost or doubled at a restart"
    filters = {f["parser"] for f in shipped["pipeline"]["filters"] if "parser" in f}
    assert filters <= {p["name"] for p in parsers}
    assert destination["match"].split(".")[0] == source["tag"].split(".")[0]
