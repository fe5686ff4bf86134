"""Compose: one door, a private network, nothing privileged, no secret in the file."""

import asyncio
import os
import re
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml
from obstore.exceptions import BaseError

from qsm_ai.api.presigning import Presigner
from qsm_ai.api.settings import Settings
from qsm_ai.storage import Storage

DEPLOY = Path(__file__).parents[2] / "deploy"
COMPOSE: dict[str, Any] = yaml.safe_load((DEPLOY / "compose.yaml").read_text())
SERVICES: dict[str, dict[str, Any]] = COMPOSE["services"]
FOR_OTHERS = {
    "QSM_UI_METRICS_HOST", "QSM_UI_METRICS_PORT",
    "QSM_API_URL", "QSM_SAMPLE_DIR", "QSM_LOG_PATH", "QSM_LOG_STATE", "QSM_LOG_GROUP", "QSM_LOG_PROJECT",
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
    assert profiles == {"cpu", "gpu", "monitoring", "postgres", "s3", "workers"}
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


@pytest.mark.parametrize("name", ["fastapi-be", "worker"])
def test_uploads_and_then_a_running_job_are_given_time_to_end(name: str) -> None:
    service = SERVICES[name]
    stopped_after = int(service["stop_grace_period"].rstrip("s"))
    assert stopped_after >= 60
    patience = [int(service["environment"][which]) for which in ("QSM_SHUTDOWN_S", "QSM_WORKER_GRACE_S")]
    assert sum(patience) + 5 <= stopped_after


@pytest.fixture
def composed(tmp_path: Path) -> Callable[..., dict[str, Any]]:
    """The services as podman-compose, an implementation of the same file format, understands them."""
    engine = tmp_path / "podman"
    engine.write_text("#!/bin/sh\necho podman version 5.0.0\n")
    engine.chmod(0o755)

    def read(*profiles: str, **variables: str) -> dict[str, Any]:
        command = [
            sys.executable, "-m", "podman_compose", "--podman-path", str(engine),
            "--file", str(DEPLOY / "compose.yaml"), "config",
        ]  # fmt: skip
        variables |= {
            "PATH": os.environ["PATH"],
            "HOME": str(tmp_path),
            "COMPOSE_PROFILES": ",".join(profiles),
        }
        done = subprocess.run(command, capture_output=True, text=True, check=False, env=variables, cwd=DEPLOY)
        assert done.returncode == 0, done.stderr
        services: dict[str, Any] = yaml.safe_load(done.stdout)["services"]
        return services

    return read


def backend_settings(service: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> Settings:
    """What the backend reads in its container: the image's variables and the file's."""
    for name in [name for name in os.environ if name.startswith("QSM_")]:
        monkeypatch.delenv(name)
    image = (DEPLOY / "docker/fastapi-be.Dockerfile").read_text()
    for name, value in re.findall(r"\b(QSM_\w+)=(\S+)", image):
        monkeypatch.setenv(name, value)
    for name, value in service["environment"].items():
        monkeypatch.setenv(name, str(value))
    return Settings()


@pytest.mark.parametrize("name", ["fastapi-be", "worker"])
def test_alone_on_this_machine_it_starts_without_a_setting(
    composed: Callable[..., dict[str, Any]], monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    settings = backend_settings(composed("cpu", "workers")[name], monkeypatch)
    assert settings.is_local
    assert settings.triton_url == "triton-is:8001"
    assert settings.database.startswith("sqlite:////data/")


def test_open_to_other_machines_it_does_not_start_until_it_is_said_who_may_come(
    composed: Callable[..., dict[str, Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    services = composed("cpu", QSM_BIND="0.0.0.0")  # noqa: S104
    assert services["proxy"]["ports"] == ["0.0.0.0:8080:8080"]
    with pytest.raises(ValueError, match="QSM_ACCESS"):
        backend_settings(services["fastapi-be"], monkeypatch)
    services = composed("cpu", QSM_BIND="0.0.0.0", QSM_ACCESS="keys")  # noqa: S104
    assert backend_settings(services["fastapi-be"], monkeypatch).access == ["keys"]


def test_the_settings_of_each_way_in_reach_the_backend(
    composed: Callable[..., dict[str, Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    given = {
        "QSM_BIND": "192.0.2.1",
        "QSM_ACCESS": "keys,oidc",
        "QSM_OIDC_ISSUER": "https://login.example.org",
        "QSM_OIDC_AUDIENCE": "qsm-ai",
    }
    settings = backend_settings(composed("cpu", **given)["fastapi-be"], monkeypatch)
    assert settings.access == ["keys", "oidc"]
    assert settings.oidc is not None
    assert settings.oidc.issuer == "https://login.example.org"


def test_requests_are_counted_in_memory_unless_a_redis_is_named(
    composed: Callable[..., dict[str, Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = backend_settings(composed("cpu")["fastapi-be"], monkeypatch)
    assert settings.rate_limit_storage == "memory://"
    services = composed("cpu", QSM_RATE_LIMIT_STORAGE="redis://counts.example.org:6379")
    settings = backend_settings(services["fastapi-be"], monkeypatch)
    assert settings.rate_limit_storage == "redis://counts.example.org:6379"


@pytest.mark.parametrize(
    ("profiles", "added"),
    [
        (["cpu"], {"triton-is-cpu"}),
        (["gpu"], {"triton-is-gpu"}),
        (["cpu", "workers"], {"triton-is-cpu", "worker"}),
        (["cpu", "postgres", "s3"], {"triton-is-cpu", "postgres", "s3"}),
    ],
    ids=["cpu", "gpu", "workers", "postgres-and-s3"],
)
def test_a_profile_adds_its_services(
    composed: Callable[..., dict[str, Any]], profiles: list[str], added: set[str]
) -> None:
    assert set(composed(*profiles)) == {"proxy", "streamlit-fe", "fastapi-be"} | added


def test_uploads_to_the_page_have_room_on_disk(composed: Callable[..., dict[str, Any]]) -> None:
    """Streamlit spools them to /tmp; a tmpfs ends at its size and counts against the memory."""
    page = SERVICES["streamlit-fe"]
    assert page["tmpfs"] == []
    assert [volume.split(":")[1:] for volume in page["volumes"]] == [["/tmp"]]  # noqa: S108
    # One limit for both tiers.
    for services, limit in ((composed("cpu"), "2048"), (composed("cpu", QSM_MAX_UPLOAD_MB="512"), "512")):
        given = services["streamlit-fe"]["environment"]["STREAMLIT_SERVER_MAX_UPLOAD_SIZE"]
        assert str(given) == str(services["fastapi-be"]["environment"]["QSM_MAX_UPLOAD_MB"]) == limit


def use_credentials_of(service: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    """Give this process the variables by which the backend in its container finds its object store."""
    for name in [name for name in os.environ if name.startswith("AWS_")]:
        monkeypatch.delenv(name)
    for name, value in service["environment"].items():
        if name.startswith("AWS_"):
            monkeypatch.setenv(name, str(value or ""))


PAIR = ("0123456789abcdef", "a-secret-of-the-test")


@pytest.fixture
def s3_port(free_port: Callable[[], int], tmp_path: Path) -> Iterator[int]:
    """Where the profile's server listens, run by its own command; folder, secret and port are elsewhere."""
    port = free_port()
    (tmp_path / "pair").write_text(",".join(PAIR) + "\n")
    (tmp_path / "data").mkdir()
    (command,) = SERVICES["s3"]["command"]
    for inside, outside in (
        ("/run/secrets/s3_key_pair", str(tmp_path / "pair")),
        ("/data", str(tmp_path / "data")),
        (":9000", f"127.0.0.1:{port}"),
        ("$$", "$"),
    ):
        assert inside in command
        command = command.replace(inside, outside)
    variables = {"PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}", "HOME": str(tmp_path)}
    with (tmp_path / "log").open("wb") as log:
        server = subprocess.Popen(
            [*SERVICES["s3"]["entrypoint"], command], env=variables, stdout=log, stderr=subprocess.STDOUT
        )
    try:
        deadline = time.monotonic() + 60
        while True:
            assert server.poll() is None, (tmp_path / "log").read_text()
            try:
                httpx.get(f"http://127.0.0.1:{port}/", timeout=5)
                break
            except httpx.HTTPError:
                assert time.monotonic() < deadline
                time.sleep(0.1)
        yield port
    finally:
        server.kill()
        server.wait()


def test_the_profile_s3_keeps_what_the_backend_stores(
    composed: Callable[..., dict[str, Any]], s3_port: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    given = {
        "QSM_STORAGE_URL": "s3://qsm-ai/objects",
        "QSM_S3_ENDPOINT": f"http://127.0.0.1:{s3_port}",
        "QSM_S3_ACCESS_KEY": PAIR[0],
        "QSM_S3_SECRET_KEY": PAIR[1],
    }
    backend = composed("cpu", "s3", **given)["fastapi-be"]
    use_credentials_of(backend, monkeypatch)
    url = backend["environment"]["QSM_STORAGE_URL"]
    storage = Storage.from_url(url)
    asyncio.run(storage.put("a/b", b"voxels"))
    assert asyncio.run(storage.get("a/b")) == b"voxels"
    # Nobody else comes in.
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "another")
    with pytest.raises(BaseError):
        asyncio.run(Storage.from_url(url).get("a/b"))


def test_the_s3_server_may_write_to_its_volume() -> None:
    # The image's /data is root's, and a new volume takes that over.
    assert SERVICES["s3"]["user"] == "0:0"
    assert SERVICES["s3"]["cap_drop"] == ["ALL"]
    assert "cap_add" not in SERVICES["s3"]


def test_without_an_endpoint_the_store_is_amazons(
    composed: Callable[..., dict[str, Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    given = {"QSM_S3_ACCESS_KEY": "0123456789abcdef", "QSM_S3_SECRET_KEY": "secret"}
    use_credentials_of(composed("cpu", **given)["fastapi-be"], monkeypatch)
    Storage.from_url("s3://scans/objects")
    address = asyncio.run(Presigner.from_url("s3://scans/objects", lifetime=60).sign("GET", "a"))
    assert address is not None
    assert (httpx.URL(address).host or "").endswith(".amazonaws.com")


@pytest.mark.parametrize("name", SERVICES)
def test_every_line_of_a_log_says_whose_it_is(name: str) -> None:
    logging = SERVICES[name]["logging"]
    if name == "fluent-bit":
        # Its own output lies where it does not look: it would ship it for ever.
        assert logging["driver"] == "local"
        return
    assert logging["driver"] == "json-file"
    assert "com.docker.compose.project" in logging["options"]["labels"].split(",")


def test_logs_of_this_project_alone_are_shipped(composed: Callable[..., dict[str, Any]]) -> None:
    service = composed("cpu", "monitoring")["fluent-bit"]
    assert service["environment"]["QSM_LOG_PROJECT"] == COMPOSE["name"]
    assert composed("monitoring", COMPOSE_PROJECT_NAME="other")["fluent-bit"]["environment"][
        "QSM_LOG_PROJECT"
    ] == "other"  # fmt: skip
    # Handed on where there are any, and not set to nothing otherwise.
    for variable in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN"):
        assert SERVICES["fluent-bit"]["environment"][variable] is None


def test_triton_has_shared_memory_for_its_tensors() -> None:
    batch = 16 * 6 * 96**3 * 4
    assert int(SERVICES["triton-is-cpu"]["shm_size"].rstrip("g")) * 2**30 > 4 * batch
