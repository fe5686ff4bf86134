"""What is deployed asks who comes, and the page of a deployment can sign people in."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from qsm_ai.api.settings import Settings

DEPLOY = Path(__file__).parents[2] / "deploy"
OVERLAYS = ("eks", "gke", "local-cpu")


def build(folder: Path) -> list[dict[str, Any]]:
    kubectl = shutil.which("kubectl")
    if kubectl is None:
        pytest.skip("no kubectl: install Debian's kubernetes-client")
    built = subprocess.run(
        [kubectl, "kustomize", "--load-restrictor=LoadRestrictionsNone", str(folder)],
        capture_output=True, text=True, check=False, timeout=120,
    )  # fmt: skip
    assert built.returncode == 0, built.stderr
    return [document for document in yaml.safe_load_all(built.stdout) if document]


def settings_of(objects: list[dict[str, Any]], monkeypatch: pytest.MonkeyPatch) -> Settings:
    """The backend's settings in its pod: the image's and those of the map."""
    (found,) = (
        o["data"] for o in objects if o["kind"] == "ConfigMap" and o["metadata"]["name"].startswith("backend")
    )
    monkeypatch.setenv("QSM_HOST", "0.0.0.0")  # noqa: S104 - as the image has it
    for name, value in found.items():
        monkeypatch.setenv(name, str(value))
    return Settings()


@pytest.mark.parametrize("name", OVERLAYS)
def test_in_a_cluster_nobody_comes_in_unknown(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    access = settings_of(build(DEPLOY / "kubernetes/overlays" / name), monkeypatch).access
    assert access
    assert set(access) <= {"keys", "oidc"}


def test_a_cluster_signs_in_at_an_issuer_by_one_component(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    copy = tmp_path / "kubernetes"
    shutil.copytree(DEPLOY / "kubernetes", copy)
    overlay = copy / "overlays/own"
    overlay.mkdir()
    (overlay / "kustomization.yaml").write_text(
        yaml.safe_dump(
            {
                "apiVersion": "kustomize.config.k8s.io/v1beta1",
                "kind": "Kustomization",
                "resources": ["../../base"],
                "components": ["../../components/sign-in"],
                "configMapGenerator": [
                    {
                        "name": "backend",
                        "behavior": "merge",
                        "literals": [
                            "QSM_OIDC_ISSUER=https://issuer.example.org",
                            "QSM_OIDC_AUDIENCE=qsm-ai",
                        ],
                    }
                ],
            }
        )
    )
    objects = build(overlay)
    settings = settings_of(objects, monkeypatch)
    assert settings.access == ["keys", "oidc"]
    assert settings.oidc is not None
    (page,) = (o for o in objects if o["kind"] == "Deployment" and o["metadata"]["name"] == "streamlit-fe")
    pod = page["spec"]["template"]["spec"]
    container = pod["containers"][0]
    where = {entry["name"]: entry["value"] for entry in container["env"]}["STREAMLIT_SECRETS_FILES"]
    mounts = {mount["name"]: mount["mountPath"] for mount in container["volumeMounts"]}
    assert where == f"{mounts['sign-in']}/secrets.toml"
    assert {"name": "sign-in", "secret": {"secretName": "sign-in", "defaultMode": 0o440}} in pod["volumes"]
    (network,) = (o for o in objects if o["kind"] == "NetworkPolicy" and o["metadata"]["name"] == "sign-in")
    assert network["spec"]["egress"][0]["ports"] == [{"protocol": "TCP", "port": 443}]


def test_compose_signs_in_at_an_issuer_by_one_more_file() -> None:
    base = yaml.safe_load((DEPLOY / "compose.yaml").read_text())
    more = yaml.safe_load((DEPLOY / "compose.oidc.yaml").read_text())
    page = more["services"]["streamlit-fe"]
    assert set(more["services"]) <= set(base["services"])
    (secret,) = page["secrets"]
    assert page["environment"]["STREAMLIT_SECRETS_FILES"] == f"/run/secrets/{secret}"
    assert set(more["secrets"]) == {secret}
    assert set(page["networks"]) <= set(base["networks"])
