"""Compose: one door, a private network, nothing privileged, no secret in the file."""

import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from qsm_ai.api.settings import Settings

DEPLOY = Path(__file__).parents[2] / "deploy"
COMPOSE: dict[str, Any] = yaml.safe_load((DEPLOY / "compose.yaml").read_text())
SERVICES: dict[str, dict[str, Any]] = COMPOSE["services"]
FOR_OTHERS = {
    "QSM_API_URL", "QSM_SAMPLE_DIR", "QSM_LOG_PATH", "QSM_LOG_STATE", "QSM_LOG_GROUP",
}  # fmt: skip


def networks(service: dict[str, Any]) -> set[str]:
    return set(service["networks"])


def test_the_proxy_alone_is_published_and_on_this_machine_unless_asked() -> None:
    published = {name: port for name, s in SERVICES.items() for port in s.get("ports", [])}
    assert published.pop("proxy") == "${QSM_BIND:-127.0.0.1}:${QSM_PUBLIC_PORT:-8080}:8080"
    # What an operator looks at is published to the machine itself only.
    assert set(published) == {"prometheus", "grafana"}
    assert all(port.startswith("127.0.0.1:") for port in published.values())


def test_triton_is_on_the_private_network_only() -> None:
    for name in ("triton-is-cpu", "triton-is-gpu"):
        assert networks(SERVICES[name]) == {"private"}
        assert SERVICES[name]["networks"]["private"]["aliases"] == ["triton-is"]
        assert "ports" not in SERVICES[name]
    assert COMPOSE["networks"]["private"] == {"internal": True}


def test_the_proxy_reaches_both_tiers_by_the_names_it_knows() -> None:
    names = re.findall(r"http://([\w-]+):(\d+)", (DEPLOY / "proxy/nginx.conf").read_text())
    assert names == [("fastapi-be", "8000"), ("streamlit-fe", "8501")]
    for name, port in names:
        assert networks(SERVICES[name]) & networks(SERVICES["proxy"])
        assert f"EXPOSE {port}" in (DEPLOY / f"docker/{name}.Dockerfile").read_text()


@pytest.mark.parametrize("name", SERVICES)
def test_a_service_can_do_no_more_than_it_must(name: str) -> None:
    service = SERVICES[name]
    assert service["read_only"] is True
    assert service["cap_drop"] == ["ALL"]
    assert service["security_opt"] == ["no-new-privileges:true"]
    assert "privileged" not in service
    assert "mem_limit" in service
    assert not any("docker.sock" in str(volume) for volume in service.get("volumes", []))
    # The log reader alone must read files that are root's.
    assert ("cap_add" in service) == (name == "fluent-bit")


@pytest.mark.parametrize("name", SERVICES)
def test_an_image_has_a_version_and_a_build_has_its_file(name: str) -> None:
    service = SERVICES[name]
    assert re.search(r":(?:v?\d[\w.-]*|\$\{QSM_VERSION:-dev\})$", service["image"])
    if "build" in service:
        assert (DEPLOY / service["build"]["context"] / service["build"]["dockerfile"]).is_file()


@pytest.mark.parametrize("name", SERVICES)
def test_mounted_files_and_volumes_are_there(name: str) -> None:
    for volume in SERVICES[name].get("volumes", []):
        source = re.sub(r"\$\{\w+:-(\w*)\}", r"\1", volume).split(":")[0]
        if source.startswith("./"):
            assert (DEPLOY / source).exists(), source
            assert volume.endswith(":ro")
        elif not source.startswith("/"):
            assert source in COMPOSE["volumes"]


def test_profiles_are_those_that_are_documented() -> None:
    profiles = {p for s in SERVICES.values() for p in s.get("profiles", [])}
    assert profiles == {"cpu", "gpu", "monitoring", "postgres", "s3"}
    readme = (DEPLOY / "README.md").read_text()
    assert all(f"`{p}`" in readme for p in profiles)
    assert (DEPLOY / ".env").read_text().splitlines()[-1] == "COMPOSE_PROFILES=cpu"


def test_no_secret_stands_in_the_file_or_has_a_default() -> None:
    text = (DEPLOY / "compose.yaml").read_text()
    for variable, default in re.findall(r"\$\{(\w*(?:PASSWORD|SECRET|KEY|TOKEN)\w*)(?::?-([^}]*))?\}", text):
        assert default == "", variable
    assert all(set(secret) == {"file"} for secret in COMPOSE["secrets"].values())
    assert (
        not (DEPLOY / "secrets").exists() or "deploy/secrets/" in (DEPLOY.parent / ".gitignore").read_text()
    )
    used = {s for service in SERVICES.values() for s in service.get("secrets", [])}
    assert used == set(COMPOSE["secrets"])


def test_every_setting_that_is_passed_on_exists() -> None:
    known = {f"QSM_{field.upper()}" for field in Settings.model_fields} | FOR_OTHERS
    for service in SERVICES.values():
        environment = service.get("environment", {})
        assert {name for name in environment if name.startswith("QSM_")} <= known


def test_settings_in_images_exist() -> None:
    known = {f"QSM_{field.upper()}" for field in Settings.model_fields} | FOR_OTHERS
    for name in ("fastapi-be", "streamlit-fe"):
        text = (DEPLOY / f"docker/{name}.Dockerfile").read_text()
        assert set(re.findall(r"\b(QSM_\w+)=", text)) <= known


def test_a_running_job_is_given_time_to_end() -> None:
    assert int(SERVICES["fastapi-be"]["stop_grace_period"].rstrip("s")) >= 60


def test_triton_has_shared_memory_for_its_tensors() -> None:
    batch = 16 * 6 * 96**3 * 4
    assert int(SERVICES["triton-is-cpu"]["shm_size"].rstrip("g")) * 2**30 > 4 * batch
