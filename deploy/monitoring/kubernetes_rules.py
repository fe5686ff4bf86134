"""Rules, dashboards and log files as a cluster wants them; `make docs` writes, tests keep them current."""

from __future__ import annotations

import json
from pathlib import Path

import yaml

HERE = Path(__file__).parent
TARGET = HERE.parent / "kubernetes/components/monitoring/rules.yaml"
DASHBOARDS = TARGET.with_name("dashboards.yaml")
LOGS = HERE.parent / "kubernetes/cluster/logs"
THRESHOLDS = "gpu"
"""The component is for clusters whose Triton has a GPU."""

HEAD = "# Made by `make docs` from deploy/monitoring/prometheus; change rules and thresholds there.\n"


class _Plain(yaml.SafeDumper):
    """Writes what stands twice twice."""

    def ignore_aliases(self, data: object) -> bool:
        """Nothing is an alias."""
        return True


def manifest() -> str:
    """The PrometheusRule with every group of Compose's rule files."""
    prometheus = HERE / "prometheus"
    files = [prometheus / f"thresholds/{THRESHOLDS}.yml", *sorted((prometheus / "rules").glob("*.yml"))]
    groups = [group for file in files for group in yaml.safe_load(file.read_text())["groups"]]
    rule = {
        "apiVersion": "monitoring.coreos.com/v1",
        "kind": "PrometheusRule",
        "metadata": {"name": "qsm-ai", "labels": {"release": "kube-prometheus-stack"}},
        "spec": {"groups": groups},
    }
    return HEAD + yaml.dump(rule, Dumper=_Plain, sort_keys=False, width=120)


def dashboards() -> str:
    """A ConfigMap for each dashboard, with the label that Grafana's sidecar looks for."""
    written = []
    for file in sorted((HERE / "grafana/dashboards").glob("*.json")):
        board = json.dumps(json.loads(file.read_text()), separators=(",", ":"), ensure_ascii=False)
        metadata = {"name": f"dashboard-{file.stem}", "labels": {"grafana_dashboard": "1"}}
        written.append(
            {"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata, "data": {file.name: board}}
        )
    text = yaml.dump_all(written, Dumper=_Plain, sort_keys=False, width=1_000_000, allow_unicode=True)
    return "# Made by `make dashboards` and `make docs` from deploy/monitoring/dashboards.\n" + text


def logs() -> dict[Path, str]:
    """The files of Compose's Fluent Bit: kustomize takes none from outside of its folder."""
    made = {}
    for name in ("cloudwatch.yaml", "parsers.yaml", "normalise.lua"):
        comment = "--" if name.endswith(".lua") else "#"
        head = f"{comment} Made by `make docs` from deploy/monitoring/fluent-bit; change it there.\n"
        made[LOGS / name] = head + (HERE / "fluent-bit" / name).read_text(encoding="utf-8")
    return made


if __name__ == "__main__":
    for target, text in ((TARGET, manifest()), (DASHBOARDS, dashboards()), *logs().items()):
        target.write_text(text, encoding="utf-8")
        print(target.relative_to(HERE.parents[1]))
