"""The alerting rules as the Prometheus operator wants them; `make docs` writes, a test keeps them current."""

from __future__ import annotations

from pathlib import Path

import yaml

HERE = Path(__file__).parent
TARGET = HERE.parent / "kubernetes/components/monitoring/rules.yaml"
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


if __name__ == "__main__":
    TARGET.write_text(manifest(), encoding="utf-8")
    print(TARGET.relative_to(HERE.parents[1]))
